"""A monitor from labelled conversations, black-box: the words of the replies with their log-odds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marple.agent.corpus_reading import Corpus, Messages, Steps, read_corpus, word_weights
from marple.agent.investigator import Play, Request, Script

__all__ = ["METHOD", "MonitorBlackbox"]

LEAST = 4
"""Conversations needed on each side."""


class MonitorBlackbox(Script):
    """One play of the method."""

    def __init__(self) -> None:
        self.corpus = Corpus()
        self.monitor: Mapping[str, Any] | None = None
        self.found = "Stopped before anything was found."

    def play(self, tools: Sequence[str]) -> Play:
        """Read the corpus, sort it, make a monitor of the two sides, hand it in."""
        yield from read_corpus(self.corpus)
        positive, negative = yield from self._sides()
        if min(len(positive), len(negative)) >= LEAST:
            yield from self._make(positive, negative, tools)
        yield [Request("submit", self.answer_now(), "The method is through.")]

    def answer_now(self) -> Mapping[str, Any]:
        """The monitor, if there is one."""
        evidence = self.corpus.evidence[-3:]
        claims = [{"statement": self.found, "credence": 0.8, "evidence": evidence}] if evidence else []
        return {"monitor": self.monitor, "claims": claims, "summary": self.found}

    def _sides(self) -> Steps:
        """The conversations labelled yes, and those labelled no."""
        yield from ()
        labels = self.corpus.labels
        return tuple([self.corpus.messages[n] for n in labels if labels[n] == said] for said in ("yes", "no"))

    def _make(self, positive: Sequence[Messages], negative: Sequence[Messages], tools: Sequence[str]) -> Steps:
        """Sets the monitor."""
        yield from ()
        self.monitor = {"words": word_weights(positive, negative)}
        self.found = "words of the replies tell the two sides apart as far as they come again"


METHOD = MonitorBlackbox
