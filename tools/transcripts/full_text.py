"""Full-text search and counts over a corpus, in one pass and in memory that grows with the hits alone."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from marple.tools.statistics import newcombe_interval
from marple.tools.transcripts.corpus import Transcript, words_in

__all__ = ["Hit", "TermCount", "count_terms", "search_full_text"]

_K1, _B = 1.2, 0.75


@dataclass(frozen=True)
class Hit:
    """A transcript that matches a query."""

    number: int
    score: float
    """BM25, or cosine similarity in a semantic search."""
    terms: tuple[str, ...] = ()
    """The query's terms that it says."""


@dataclass
class TermCount:
    """In how many transcripts a term is said, inside a selection and in the rest of the corpus."""

    inside: int = 0
    inside_n: int = 0
    outside: int = 0
    outside_n: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As data; with a rest also the hits expected by its rate, and Newcombe's interval of the difference."""
        share = self.inside / self.inside_n if self.inside_n else None
        record: dict[str, Any] = {"count": self.inside, "n": self.inside_n, "share": share}
        if self.inside_n and self.outside_n:
            low, high = newcombe_interval(self.inside, self.outside, first_n=self.inside_n, second_n=self.outside_n)
            rest = self.outside / self.outside_n
            record |= {"rest_count": self.outside, "rest_n": self.outside_n, "expected": rest * self.inside_n}
            record |= {"difference": self.inside / self.inside_n - rest, "ci_low": low, "ci_high": high}
        return record


@dataclass
class _Matches:
    lengths: int = 0
    total: int = 0
    found: list[tuple[int, int, tuple[int, ...]]] = field(default_factory=list)


def search_full_text(
    corpus: Iterable[Transcript],
    terms: Sequence[str],
    *,
    where: Mapping[str, Sequence[str]],
    roles: Collection[str] = (),
    most: int,
) -> tuple[list[Hit], dict[str, TermCount], int]:
    """The best transcripts by Okapi BM25 (Robertson & Zaragoza 2009, k1 1.2, b 0.75), the best first.

    Args:
        corpus: every transcript; those that do not meet ``where`` count as the rest.
        terms: words, and phrases as words joined by spaces.
        where: which transcripts to search.
        roles: whose turns; all if empty.
        most: longest list.

    Returns:
        The hits, each term's counts inside and outside ``where``, and how many transcripts match at all.
    """
    matches, counts = _Matches(), {term: TermCount() for term in terms}
    for transcript in corpus:
        inside = transcript.meets(where)
        length, found = _frequencies(transcript.text(roles), terms)
        for term, frequency in zip(terms, found, strict=True):
            _add(counts[term], inside, frequency > 0)
        if inside:
            matches.total += 1
            matches.lengths += length
            if any(found):
                matches.found.append((transcript.number, length, found))
    mean = matches.lengths / max(1, matches.total) or 1.0
    weights = [_idf(counts[term].inside, matches.total) for term in terms]
    hits = (
        Hit(number, _bm25(found, length / mean, weights), tuple(t for t, f in zip(terms, found, strict=True) if f))
        for number, length, found in matches.found
    )
    return heapq.nsmallest(most, hits, key=lambda hit: (-hit.score, hit.number)), counts, len(matches.found)


def count_terms(
    corpus: Iterable[Transcript],
    terms: Sequence[str],
    *,
    where: Mapping[str, Sequence[str]],
    roles: Collection[str] = (),
    group_by: str | None = None,
) -> tuple[dict[str, TermCount], dict[str, dict[str, TermCount]]]:
    """In how many transcripts each term is said: inside ``where`` and outside, and for each value of a field.

    Returns:
        Term to its count; field's value to term to its count against the other values, all inside ``where``.
    """
    counts = {term: TermCount() for term in terms}
    groups: dict[str, Counter[str]] = {}
    sizes: Counter[str] = Counter()
    for transcript in corpus:
        inside = transcript.meets(where)
        said = [f > 0 for f in _frequencies(transcript.text(roles), terms)[1]]
        for term, yes in zip(terms, said, strict=True):
            _add(counts[term], inside, yes)
        if inside and group_by is not None:
            value = transcript.metadata.get(group_by, "(none)")
            sizes[value] += 1
            groups.setdefault(value, Counter()).update(t for t, yes in zip(terms, said, strict=True) if yes)
    total = sum(sizes.values())
    return counts, {
        value: {
            term: TermCount(said[term], sizes[value], counts[term].inside - said[term], total - sizes[value])
            for term in terms
        }
        for value, said in groups.items()
    }


def _frequencies(text: str, terms: Sequence[str]) -> tuple[int, tuple[int, ...]]:
    words = words_in(text)
    singles = Counter(words)
    joined = f" {' '.join(words)} " if any(" " in term for term in terms) else ""
    return len(words), tuple(joined.count(f" {term} ") if " " in term else singles[term] for term in terms)


def _add(count: TermCount, inside: bool, said: bool) -> None:
    if inside:
        count.inside_n += 1
        count.inside += said
    else:
        count.outside_n += 1
        count.outside += said


def _idf(documents: int, total: int) -> float:
    return math.log(1 + (total - documents + 0.5) / (documents + 0.5))


def _bm25(found: Sequence[int], relative_length: float, weights: Sequence[float]) -> float:
    norm = _K1 * (1 - _B + _B * relative_length)
    return sum(weight * f * (_K1 + 1) / (f + norm) for f, weight in zip(found, weights, strict=True))
