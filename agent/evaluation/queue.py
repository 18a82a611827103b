"""Which sample is played next, and when none may start any more."""

from __future__ import annotations

import re
from collections import Counter, OrderedDict, deque
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from marple.agent.evaluation.sample_log import SampleLog
from marple.agent.evaluation.samples import Job, Sample, SampleEnd
from marple.agent.evaluation.totals import Spent, TotalBudget
from marple.errors import StorageError

__all__ = ["INFRASTRUCTURE", "SampleQueue", "can_be_retried", "spent_by", "without_finished"]

INFRASTRUCTURE = ("error", "worker_died", "target_unreachable", "judge_failed", "cancelled")
"""Endings that say something about the machine, the network or a person, and nothing about the arm; and so does
``invalid`` with one of the reasons in `_INVALID`. What an arm does wrong itself is never tried again."""

_INVALID = ("invalid:staging", "invalid:trial_failed", "invalid:weights_changed")


def can_be_retried(end: SampleEnd) -> bool:
    """Whether ``--retry-errors`` plays a finished sample again."""
    return end.finished and not end.scored and (end.status in INFRASTRUCTURE or end.status in _INVALID)


def spent_by(ends: Sequence[SampleEnd], seconds: float) -> Spent:
    """What runs have used."""
    costs = [(end.usage.get("investigator") or {}).get("cost_usd") for end in ends]
    return Spent(
        cost=sum(cost for cost in costs if cost is not None),
        cost_known=None not in costs,
        seconds=seconds,
        target_tokens=sum(int(end.usage.get("target_tokens") or 0) for end in ends),
    )


class SampleQueue:
    """The samples that wait, target by target; writes the log.

    Args:
        samples: what is to be played, those on one target together.
        log: open for appending.
        runs: folder of the run folders.
        budget: of the whole evaluation.
    """

    def __init__(self, samples: Sequence[Sample], *, log: SampleLog, runs: Path, budget: TotalBudget) -> None:
        self._waiting: OrderedDict[str, deque[Sample]] = OrderedDict()
        for sample in samples:
            self._waiting.setdefault(sample.organism, deque()).append(sample)
        self._log = log
        self._runs = runs
        self._budget = budget
        self._playing: dict[str, Sample] = {}
        self.stopped = ""
        """Why nothing may start any more; empty as long as it may."""
        self.stopped_arms: dict[str, str] = {}
        """Arms of which nothing may start any more, and why."""
        self._without: list[Sample] = []

    def take(self, targets: Collection[str], *, more: bool) -> Job | None:
        """See `JobQueue.take`."""
        if not self.stopped and (limit := self._budget.reached(self.spent)):
            self.stopped = f"the evaluation's budget of {limit} is used up"
        if self.stopped:
            return None
        held = next((target for target in self._waiting if target in targets), None)
        target = held or (next(iter(self._waiting), None) if more else None)
        if target is None:
            return None
        sample = self._waiting[target][0]
        job = Job(sample, str(self._runs), self._run_id(sample))
        try:
            self._log.started(job)
        except StorageError as error:
            self.stopped = str(error)
            return None
        self._waiting[target].popleft()
        if not self._waiting[target]:
            del self._waiting[target]
        self._playing[sample.key] = sample
        return job

    def finish(self, end: SampleEnd) -> None:
        """See `JobQueue.finish`."""
        sample = self._playing.pop(end.key)
        try:
            self._log.ended(end)
        except StorageError as error:
            self.stopped = self.stopped or str(error)
        if end.ends_all:
            self.stopped = self.stopped or end.ends_all
        if end.ends_arm and sample.arm.name not in self.stopped_arms:
            self._stop_arm(sample.arm.name, end.ends_arm)

    def needs(self, target: str) -> bool:
        """See `JobQueue.needs`."""
        waiting = not self.stopped and target in self._waiting
        return waiting or any(sample.organism == target for sample in self._playing.values())

    @property
    def spent(self) -> Spent:
        """What all runs so far have used."""
        return spent_by(self._log.ends, self._log.seconds + self._log.elapsed)

    def not_run(self) -> list[tuple[Sample, str]]:
        """Samples that were not started, and why."""
        left = [sample for samples in self._waiting.values() for sample in samples]
        return [(sample, self.stopped_arms[sample.arm.name]) for sample in self._without] + [
            (sample, self.stopped or "asked to stop") for sample in left
        ]

    def counts(self) -> Mapping[str, int]:
        """How many wait and how many are being played."""
        waiting = sum(map(len, self._waiting.values()))
        return Counter({"waiting": waiting, "playing": len(self._playing)})

    def _stop_arm(self, arm: str, why: str) -> None:
        self.stopped_arms[arm] = why
        for target, samples in list(self._waiting.items()):
            self._without += [sample for sample in samples if sample.arm.name == arm]
            kept = deque(sample for sample in samples if sample.arm.name != arm)
            if kept:
                self._waiting[target] = kept
            else:
                del self._waiting[target]

    def _run_id(self, sample: Sample) -> str:
        """The folder of the run that was interrupted, or a new one's, which says what is in it."""
        state = self._log.states.get(sample.key)
        if state is not None and not state.finished:
            return state.run_id
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", f"{sample.case}.{sample.arm.name}.e{sample.epoch}")[:100]
        again = "" if state is None else f".r{len(state.superseded) + 1}"
        return f"{name}.{sample.key[:8]}{again}"


def without_finished(samples: Sequence[Sample], log: SampleLog, *, retry_errors: bool) -> list[Sample]:
    """What is to be played: what has no result, and where that is asked for what ended in an error."""
    left = []
    for sample in samples:
        state = log.states.get(sample.key)
        if state is None or not state.finished or (retry_errors and state.end and can_be_retried(state.end)):
            left.append(sample)
    return left
