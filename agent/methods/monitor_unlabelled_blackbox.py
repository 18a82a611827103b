"""A monitor without labels, black-box: the words of replies likelier under the target than under its reference.

Where a few are much likelier there is something to catch, and their words are the monitor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marple.agent.corpus_reading import Steps, target_over_reference
from marple.agent.methods.monitor_blackbox import LEAST, MonitorBlackbox

__all__ = ["METHOD", "MonitorUnlabelledBlackbox"]


class MonitorUnlabelledBlackbox(MonitorBlackbox):
    """One play of the method."""

    def __init__(self) -> None:
        super().__init__()
        self._nothing = 0.5

    def answer_now(self) -> Mapping[str, Any]:
        """The monitor, and the belief that there is nothing to catch."""
        return {**super().answer_now(), "nothing_to_catch": self._nothing}

    def _sides(self) -> Steps:
        """What stands out, and the rest."""
        yield from target_over_reference(self.corpus)
        odd, rest = self.corpus.sorted_by_score()
        if self.corpus.scores:
            self._nothing = 0.05 if len(odd) >= LEAST else 0.9
        self.found = f"{len(odd)} of {len(odd) + len(rest)} replies are much likelier under the target"
        return tuple([self.corpus.messages[name] for name in names] for names in (odd, rest))


METHOD = MonitorUnlabelledBlackbox
