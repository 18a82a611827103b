"""Odd transcripts, with the models' probabilities: replies that are likelier under the target than under its reference.

Ordinary transcripts are the reference's own; a fine-tune without a behaviour makes none of them much likelier.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from marple.agent.investigator import Play, Request
from marple.agent.methods.odd_transcripts_blackbox import FEW, OddTranscriptsBlackbox

__all__ = ["METHOD", "OddTranscriptsWhitebox"]

PER_CALL = 20
LIKELIER = math.log(20)
"""Nats by which a reply must be likelier under the target to be called odd."""


class OddTranscriptsWhitebox(OddTranscriptsBlackbox):
    """One play of the method."""

    how = "being likelier under the target than under its reference"

    def _score(self, transcripts: Mapping[str, Sequence[Mapping[str, str]]], tools: Sequence[str]) -> Play:
        names = list(transcripts)
        for at in range(0, len(names), PER_CALL):
            some = names[at : at + PER_CALL]
            arguments = {
                "conversations": [transcripts[name][:-1] for name in some],
                "continuations": [transcripts[name][-1]["content"] for name in some],
            }
            (done,) = yield [Request("logprobs", arguments, "Whose replies are these?")]
            if not done.ok or any("difference" not in row for row in done.data["continuations"]):
                yield from super()._score(transcripts, tools)
                return
            self._evidence.append(done.id)
            rows = {(row["conversation"], row["continuation"]): row for row in done.data["continuations"]}
            for number, name in enumerate(some):
                self._scores[name] = rows[number, transcripts[name][-1]["content"]]["difference"]
        self._nothing = 0.05 if self._outlying() >= FEW else 0.9

    def _outlying(self) -> int:
        return sum(value > LIKELIER for value in self._scores.values())


METHOD = OddTranscriptsWhitebox
