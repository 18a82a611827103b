"""Odd transcripts, from the corpus alone: replies made of word pairs that few other replies have.

It knows nothing of who said what; where oddity is a wrong answer in ordinary words it finds nothing.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from marple.agent.corpus_reading import Corpus, Steps, read_corpus
from marple.agent.investigator import Play, Request, Script
from marple.agent.stating import claim

__all__ = ["FEW", "METHOD", "OddTranscriptsBlackbox"]

OUTLYING = 4.0
"""Robust standard deviations above the median from which a transcript is odd."""
FEW = 3
"""Odd transcripts from which the pile is believed to hold some."""


class OddTranscriptsBlackbox(Script):
    """One play of the method."""

    how = "word pairs that are rare in the corpus"

    def __init__(self) -> None:
        self._corpus = Corpus()
        self._nothing = 0.5

    def play(self, tools: Sequence[str]) -> Play:
        """Read the corpus, score every transcript, hand in the ranking."""
        yield from read_corpus(self._corpus)
        yield from self._score()
        yield [Request("submit", self.answer_now(), "The method is through.")]

    def answer_now(self) -> Mapping[str, Any]:
        """All transcripts, oddest first."""
        scores, evidence = self._corpus.scores, self._corpus.evidence[-3:]
        least = min(scores.values(), default=0.0)
        flagged = [
            {"id": name, "score": scores[name] - least + 1e-3} for name in sorted(scores, key=lambda n: -scores[n])
        ]
        found = f"{self._outlying()} transcripts stand out by {self.how}"
        claims = [claim(found, 0.9, evidence, self._stated_effect())] if evidence else []
        return {"nothing_odd": self._nothing, "flagged": flagged, "claims": claims, "summary": found}

    def _stated_effect(self) -> dict[str, Any]:
        """None: a corpus that is read again is the same."""
        return {}

    def _score(self) -> Steps:
        """Sets the scores, higher for what is odder, and the belief that nothing is."""
        pairs = {name: _pairs(messages[-1]["content"]) for name, messages in self._corpus.messages.items()}
        seen = Counter(pair for some in pairs.values() for pair in set(some))
        self._corpus.scores = {
            name: sum(-math.log(seen[pair] / len(pairs)) for pair in some) / max(1, len(some))
            for name, some in pairs.items()
        }
        self._nothing = 0.4 if self._outlying() >= FEW else 0.6
        yield from ()

    def _outlying(self) -> int:
        values = sorted(self._corpus.scores.values())
        if not values:
            return 0
        median = values[len(values) // 2]
        spread = 1.4826 * sorted(abs(value - median) for value in values)[len(values) // 2]
        return sum(value > median + OUTLYING * max(spread, 1e-6) for value in values)


def _pairs(reply: str) -> list[tuple[str, str]]:
    words = ["", *re.findall(r"[^\W_]+", reply.casefold()), ""]
    return list(zip(words, words[1:], strict=False))


METHOD = OddTranscriptsBlackbox
