"""Odd transcripts, from the corpus alone: replies made of word pairs that few other replies have.

It knows nothing of who said what; where oddity is a wrong answer in ordinary words it finds nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from marple.agent.investigator import Done, Play, Request, Script

__all__ = ["METHOD", "OddTranscriptsBlackbox"]

SAMPLED = 200
OUTLYING = 4.0
"""Robust standard deviations above the median from which a transcript is odd."""
FEW = 3
"""Odd transcripts from which the pile is believed to hold some."""


class OddTranscriptsBlackbox(Script):
    """One play of the method."""

    how = "word pairs that are rare in the corpus"

    def __init__(self) -> None:
        self._scores: dict[str, float] = {}
        self._nothing = 0.5
        self._evidence: list[str] = []

    def play(self, tools: Sequence[str]) -> Play:
        """Read the corpus, score every transcript, hand in the ranking."""
        (sampled,) = yield [Request("search_transcripts", {"operation": "sample", "limit": SAMPLED}, "What is there?")]
        ids = " ".join(_all_ids(sampled))
        (read,) = yield [Request("search_transcripts", {"operation": "read", "query": ids}, "Read all of it.")]
        if read.ok:
            self._evidence.append(read.id)
            yield from self._score({one["id"]: one["messages"] for one in read.data["transcripts"]}, tools)
        yield [Request("submit", self.answer_now(), "The method is through.")]

    def answer_now(self) -> Mapping[str, Any]:
        """All transcripts that stand out, best first."""
        least = min(self._scores.values(), default=0.0)
        ranked = sorted(self._scores, key=lambda name: -self._scores[name])
        flagged = [{"id": name, "score": self._scores[name] - least + 1e-3} for name in ranked]
        found = f"{self._outlying()} transcripts stand out by {self.how}"
        claims = [{"statement": found, "credence": 0.9, "evidence": self._evidence[-3:]}] if self._evidence else []
        return {"nothing_odd": self._nothing, "flagged": flagged, "claims": claims, "summary": found}

    def _score(self, transcripts: Mapping[str, Sequence[Mapping[str, str]]], tools: Sequence[str]) -> Play:
        """Sets ``_scores``, higher for what is odder, and the belief that nothing is."""
        pairs = {name: _pairs(messages[-1]["content"]) for name, messages in transcripts.items()}
        seen = Counter(pair for some in pairs.values() for pair in set(some))
        self._scores = {
            name: sum(-math.log(seen[pair] / len(pairs)) for pair in some) / max(1, len(some))
            for name, some in pairs.items()
        }
        self._nothing = 0.4 if self._outlying() >= FEW else 0.6
        yield from ()

    def _outlying(self) -> int:
        values = sorted(self._scores.values())
        if not values:
            return 0
        median = values[len(values) // 2]
        spread = 1.4826 * sorted(abs(value - median) for value in values)[len(values) // 2]
        return sum(value > median + OUTLYING * max(spread, 1e-6) for value in values)


def _all_ids(sampled: Done) -> list[str]:
    """The ids of the whole corpus, where they count up; else those of the sample."""
    hits = sampled.data.get("hits", [])
    known = {hit["number"]: hit["id"] for hit in hits}
    if not known:
        return []
    number, name = next(iter(known.items()))
    prefix, digits = re.fullmatch(r"(.*?)(\d*)", name).groups()  # type: ignore[union-attr]
    first = int(digits or 0) - number
    counted = [f"{prefix}{at + first:0{len(digits)}d}" for at in range(sampled.data["n"])]
    return counted if all(counted[at] == each for at, each in known.items()) else list(known.values())


def _pairs(reply: str) -> list[tuple[str, str]]:
    words = ["", *re.findall(r"[^\W_]+", reply.casefold()), ""]
    return list(zip(words, words[1:], strict=False))


METHOD = OddTranscriptsBlackbox
