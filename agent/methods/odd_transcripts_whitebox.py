"""Odd transcripts, with the models' probabilities: replies that are likelier under the target than under its reference.

Ordinary transcripts are the reference's own; a fine-tune without a behaviour makes none of them much likelier.
"""

from __future__ import annotations

from typing import Any

from marple.agent.corpus_reading import LIKELIER, Steps, target_over_reference
from marple.agent.investigator import Done
from marple.agent.methods.odd_transcripts_blackbox import FEW, OddTranscriptsBlackbox
from marple.agent.stating import at_least_halfway, at_most_about, shown_by

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

    def _stated_effect(self) -> dict[str, Any]:
        """The call with most replies that are much likelier under the target, and that they are, or that few are."""
        called = [one for one in self._corpus.scored if one.ok]
        if not self._corpus.scores or not called:
            return super()._stated_effect()
        most = max(called, key=_likelier)
        if self._nothing < 0.5:
            return at_least_halfway(most, {"number": "likelier"})
        return at_most_about(most, {"number": "likelier"}, slack=0.05)

    def _outlying(self) -> int:
        return sum(value > LIKELIER for value in self._corpus.scores.values())


def _likelier(done: Done) -> float:
    return shown_by(done, {"number": "likelier"}) or 0.0


METHOD = OddTranscriptsWhitebox
