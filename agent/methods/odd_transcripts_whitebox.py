"""Odd transcripts, with the models' probabilities: replies that are likelier under the target than under its reference.

Ordinary transcripts are the reference's own; a fine-tune without a behaviour makes none of them much likelier.
"""

from __future__ import annotations

from marple.agent.corpus_reading import LIKELIER, Steps, target_over_reference
from marple.agent.methods.odd_transcripts_blackbox import FEW, OddTranscriptsBlackbox

__all__ = ["METHOD", "OddTranscriptsWhitebox"]


class OddTranscriptsWhitebox(OddTranscriptsBlackbox):
    """One play of the method."""

    how = "being likelier under the target than under its reference"

    def _score(self) -> Steps:
        yield from target_over_reference(self._corpus)
        if not self._corpus.scores:
            yield from super()._score()
            return
        self._nothing = 0.05 if self._outlying() >= FEW else 0.9

    def _outlying(self) -> int:
        return sum(value > LIKELIER for value in self._corpus.scores.values())


METHOD = OddTranscriptsWhitebox
