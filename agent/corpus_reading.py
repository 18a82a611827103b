"""How scripts read a corpus whole, and whose replies in it are likelier under the target than under its reference."""

from __future__ import annotations

import math
import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from marple.agent.investigator import Done, Request

__all__ = ["LIKELIER", "Corpus", "Messages", "Steps", "read_corpus", "target_over_reference", "word_weights"]

_SAMPLED = 200
_PER_CALL = 20
LIKELIER = math.log(20)
"""Nats by which a reply must be likelier under the target to be called odd."""

Messages = Sequence[Mapping[str, str]]
Steps = Generator[Sequence[Request], Sequence[Done], Any]
"""Like a play, but it may return something."""


@dataclass
class Corpus:
    """Transcripts by id, and what was read off them."""

    messages: dict[str, Messages] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    """The field ``label``, where there is one."""
    evidence: list[str] = field(default_factory=list)
    scores: dict[str, float] = field(default_factory=dict)
    scored: list[Done] = field(default_factory=list)
    """The calls that the scores are from."""

    def sorted_by_score(self) -> tuple[list[str], list[str]]:
        """Ids of replies that are much likelier under the target, and the others."""
        odd = [name for name, score in self.scores.items() if score > LIKELIER]
        return odd, [name for name in self.scores if name not in odd]


def read_corpus(corpus: Corpus) -> Steps:
    """Fill a corpus: its ids from a sample, then all its texts."""
    (sampled,) = yield [Request("search_transcripts", {"operation": "sample", "limit": _SAMPLED}, "What is there?")]
    ids = " ".join(_all_ids(sampled))
    (read,) = yield [Request("search_transcripts", {"operation": "read", "query": ids}, "Read all of it.")]
    if read.ok:
        corpus.evidence.append(read.id)
        for one in read.data["transcripts"]:
            corpus.messages[one["id"]] = one["messages"]
            if "label" in one["metadata"]:
                corpus.labels[one["id"]] = one["metadata"]["label"]


def target_over_reference(corpus: Corpus) -> Steps:
    """Fill the scores: log-probability of each reply under the target less that under its reference, if it has one."""
    names = list(corpus.messages)
    for at in range(0, len(names), _PER_CALL):
        some = [corpus.messages[name] for name in names[at : at + _PER_CALL]]
        arguments = {
            "conversations": [messages[:-1] for messages in some],
            "continuations": [messages[-1]["content"] for messages in some],
        }
        (done,) = yield [Request("logprobs", arguments, "Whose replies are these?")]
        if not done.ok or any("difference" not in row for row in done.data["continuations"]):
            corpus.scores.clear()
            return
        corpus.evidence.append(done.id)
        corpus.scored.append(done)
        rows = {(row["conversation"], row["continuation"]): row["difference"] for row in done.data["continuations"]}
        for number, name in enumerate(names[at : at + _PER_CALL]):
            corpus.scores[name] = rows[number, corpus.messages[name][-1]["content"]]


def word_weights(positive: Sequence[Messages], negative: Sequence[Messages], *, most: int = 400) -> dict[str, float]:
    """Log-odds of the words of replies, the largest."""
    sides = [[set(_words(messages[-1]["content"])) for messages in some] for some in (positive, negative)]
    weights = {}
    for word in sorted(set().union(*sides[0], *sides[1])):
        with_word = [sum(word in one for one in side) for side in sides]
        odds = [math.log((count + 0.5) / (len(side) + 1)) for count, side in zip(with_word, sides, strict=True)]
        weights[word] = round(odds[0] - odds[1], 4)
    return dict(sorted(weights.items(), key=lambda item: -abs(item[1]))[:most])


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())


def _all_ids(sampled: Done) -> list[str]:
    """The ids of the whole corpus, where they count up; else those of the sample."""
    known = {hit["number"]: hit["id"] for hit in sampled.data.get("hits", [])}
    if not known:
        return []
    number, name = next(iter(known.items()))
    found = re.fullmatch(r"(.*?)(\d+)", name)
    if found is None:
        return list(known.values())
    prefix, digits = found.groups()
    first = int(digits) - number
    counted = [f"{prefix}{at + first:0{len(digits)}d}" for at in range(sampled.data["n"])]
    return counted if all(counted[at] == each for at, each in known.items()) else list(known.values())
