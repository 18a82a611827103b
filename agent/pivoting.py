"""Whether several experiments on one hypothesis have moved nothing: time to settle it or to leave it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from marple.agent.notebook import is_evidence
from marple.agent.prompt_files import load_prompt
from marple.traces import Event

__all__ = ["EXPERIMENTS", "WeakSignal", "weak_signals"]

EXPERIMENTS = 3
"""Experiments on one hypothesis after which a weak signal is said to be one."""

MOVED = 0.15
"""Change of a credence that is more than a weak signal."""

SETTLED = (0.1, 0.85)
"""A credence outside this range needs no more experiments."""


@dataclass(frozen=True)
class WeakSignal:
    """A hypothesis that its latest experiments have not moved."""

    hypothesis: str
    experiments: tuple[str, ...]
    before: float
    after: float

    @property
    def text(self) -> str:
        """What the harness says."""
        return load_prompt("weak_signal").text.format(
            id=self.hypothesis,
            count=len(self.experiments),
            calls=", ".join(self.experiments),
            before=self.before,
            after=self.after,
        )


def weak_signals(events: Sequence[Event]) -> list[WeakSignal]:
    """The hypotheses to say it of now; each is said again only after as many further experiments.

    An experiment is on a hypothesis where an update of it cites the experiment. One that is cited by none is on the
    hypothesis that was written down or updated last before it. An experiment counts once the investigator has had a
    turn with its result: before that no credence could have moved.
    """
    found = []
    read = _before_the_last_turn(events)
    for name in dict.fromkeys(e.payload["id"] for e in events if e.type == "hypothesis"):
        calls = [call for call in _experiments_on(name, events) if int(call[1:]) < read]
        told = {
            call
            for event in events
            if event.type == "check_in" and event.payload.get("hypothesis") == name
            for call in event.payload["experiments"]
        }
        fresh = [call for call in calls if call not in told]
        if len(fresh) < EXPERIMENTS:
            continue
        credences = _credences(name, events)
        before = [credence for number, credence in credences if number < int(fresh[0][1:])] or [credences[0][1]]
        after = credences[-1][1]
        if abs(after - before[-1]) < MOVED and SETTLED[0] < after < SETTLED[1]:
            found.append(WeakSignal(name, tuple(fresh), before[-1], after))
    return found


def _before_the_last_turn(events: Sequence[Event]) -> int:
    """Number of the event in which the investigator spoke last."""
    return max((int(event.id[1:]) for event in events if event.type == "model_call"), default=0)


def _experiments_on(name: str, events: Sequence[Event]) -> list[str]:
    cited = {
        call: event.payload["id"]
        for event in events
        if event.type == "hypothesis"
        for call in event.payload["evidence"]
    }
    latest, found = "", []
    for event in events:
        if event.type == "hypothesis":
            latest = event.payload["id"]
        elif event.type == "tool_call" and is_evidence(event) and cited.get(event.id, latest) == name:
            found.append(event.id)
    return found


def _credences(name: str, events: Sequence[Event]) -> list[tuple[int, float]]:
    return [
        (int(event.id[1:]), event.payload["credence"])
        for event in events
        if event.type == "hypothesis" and event.payload["id"] == name
    ]
