"""What replies say about a word: the few that are shown beside its counts, cut around it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Protocol

from marple.tools.ngrams import is_filler, ngrams, word_edges

__all__ = ["EXAMPLES_LIMIT", "Said", "example_lines"]

EXAMPLES_LIMIT = 1200
"""Characters of a result's text that examples may take."""

_MOST_NGRAMS = 3
_BESIDE = 50
"""Characters of a reply shown before and behind a word."""
_LONGEST_PROMPT = 60


class _QuoteCut(Protocol):
    def __call__(self, text: str, *, limit: int | None = None) -> str: ...


@dataclass(frozen=True)
class Said:
    """One reply and what it answers."""

    place: str
    """The model and the condition, or the set of prompts; safe to show."""
    prompt: str
    reply: str


def example_lines(said: Mapping[str, Sequence[Said]], *, quote: _QuoteCut) -> Iterator[str]:
    """For each n-gram two or three replies that contain its rarest word, cut around it, from as many places as can be.

    The word and not the n-gram: a name may be praised in one phrase and warned against in another.

    Args:
        said: n-gram to replies; those that do not contain it are passed over.
        quote: makes text from a model safe to show.
    """
    words: dict[str, list[Said]] = {}
    for ngram, replies in said.items():
        word, holding = _rarest(ngram, [(one, ngrams(one.reply)) for one in replies])
        words.setdefault(word, holding)
    if words:
        yield "replies that contain them (prompt -> reply, cut around the word):"
    for word, holding in words.items():
        yield f"  {quote(word)}:"
        for one in _spread(holding)[: 3 if len(words) < _MOST_NGRAMS else 2]:
            prompt = quote(one.prompt, limit=_LONGEST_PROMPT)
            yield f"    {one.place}, {prompt} -> {_around(word, one.reply, quote)}"


def _rarest(ngram: str, replies: Sequence[tuple[Said, set[str]]]) -> tuple[str, list[Said]]:
    """Of the n-gram's words that are no fillers the one in the fewest replies, and these replies."""
    words = [word for word in ngram.split() if not is_filler(word)]
    # The n-gram itself is first, and taken where it is no more than fillers or one that says that a reply is empty.
    holding = {word: [one for one, there in replies if word in there] for word in (ngram, *words)}
    of_words = [(word, holding[word]) for word in words if holding[word]]
    return min(of_words, key=lambda entry: len(entry[1]), default=(ngram, holding[ngram]))


def _spread(said: Sequence[Said]) -> list[Said]:
    """One reply of every prompt, the places in turn, those with the most prompts first."""
    places: dict[str, dict[str, Said]] = {}
    for one in said:
        places.setdefault(one.place, {}).setdefault(one.prompt, one)
    turns = zip_longest(*sorted((list(place.values()) for place in places.values()), key=len, reverse=True))
    return [one for turn in turns for one in turn if one is not None]


def _around(word: str, reply: str, quote: _QuoteCut) -> str:
    before, behind = word_edges(word)
    found = re.search(before + re.escape(word) + behind, reply, re.IGNORECASE)
    start, stop = found.span() if found else (0, 0)
    start, stop = max(0, start - _BESIDE), min(len(reply), stop + _BESIDE)
    return f"{'...' * (start > 0)}{quote(reply[start:stop])}{'...' * (stop < len(reply))}"
