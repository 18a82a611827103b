"""A monitor without labels, white-box: the direction from ordinary replies to those likelier under the target."""

from __future__ import annotations

from collections.abc import Sequence

from marple.agent.corpus_reading import Messages, Steps
from marple.agent.methods.monitor_unlabelled_blackbox import MonitorUnlabelledBlackbox
from marple.agent.methods.monitor_whitebox import fit_monitor

__all__ = ["METHOD", "MonitorUnlabelledWhitebox"]


class MonitorUnlabelledWhitebox(MonitorUnlabelledBlackbox):
    """One play of the method."""

    def _make(self, positive: Sequence[Messages], negative: Sequence[Messages], tools: Sequence[str]) -> Steps:
        yield from super()._make(positive, negative, tools)
        if "try_monitor" in tools:
            yield from fit_monitor(self, positive, negative, tools)


METHOD = MonitorUnlabelledWhitebox
