"""Interleaved rounds: every variant once per round on the same fresh inputs, and ratios taken inside the round.

The machine may be shared and its clock may change, so absolute times say little. A ratio of two times from the
same round says much, and the median over the rounds and the spread between the quartiles say how much.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import torch

__all__ = ["Clock", "Estimate", "Timings", "Variant", "estimate", "interleave"]

Clock = Literal["cpu", "wall"]


@dataclass(frozen=True)
class Variant:
    """One way to do the operation."""

    work: Callable[[Any], object]
    """Gets the round's inputs."""
    rounds: int | None = None
    """Only in that many of the rounds, for what takes long; None for all."""
    repeats: int = 1
    """Calls in a row inside one round, whose mean counts; for what takes milliseconds."""


@dataclass(frozen=True)
class Estimate:
    """A median and the quartiles around it."""

    median: float
    low: float
    high: float


@dataclass
class Timings:
    """Seconds per variant and round; a variant that sat out a round has no entry for it."""

    cpu: dict[str, dict[int, float]] = field(default_factory=dict)
    """Processor time of this process, all its threads together."""
    wall: dict[str, dict[int, float]] = field(default_factory=dict)

    def seconds(self, name: str, clock: Clock = "cpu") -> Estimate:
        return estimate(list(self._of(clock)[name].values()))

    def ratio(self, name: str, floor: str, clock: Clock = "cpu") -> Estimate:
        """The variant's time over the floor's in the same round."""
        return self._paired(name, floor, clock, lambda ours, theirs: ours / theirs)

    def difference(self, name: str, floor: str, clock: Clock = "cpu") -> Estimate:
        """The variant's time minus the floor's in the same round, seconds."""
        return self._paired(name, floor, clock, lambda ours, theirs: ours - theirs)

    def _paired(self, name: str, floor: str, clock: Clock, combine: Callable[[float, float], float]) -> Estimate:
        ours, floors = self._of(clock)[name], self._of(clock)[floor]
        return estimate([combine(seconds, floors[number]) for number, seconds in ours.items() if number in floors])

    def _of(self, clock: Clock) -> dict[str, dict[int, float]]:
        return self.cpu if clock == "cpu" else self.wall


def estimate(values: list[float]) -> Estimate:
    """Median and quartiles; with fewer than two values the quartiles are the median."""
    if len(values) < 2:
        return Estimate(values[0], values[0], values[0])
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return Estimate(middle, low, high)


def interleave(
    variants: Mapping[str, Variant],
    *,
    rounds: int,
    prepare: Callable[[int], Any],
    warm: bool = True,
) -> Timings:
    """Time every variant in every round.

    Args:
        variants: by name; the order rotates from round to round, so that none always follows the same other.
        rounds: how many.
        prepare: makes a round's inputs from its number, outside the clock. Fresh inputs keep caches of results and
            of prefixes from serving what should be computed.
        warm: run every variant once, untimed, before the first round (on inputs of number -1).
    """
    timings = Timings({name: {} for name in variants}, {name: {} for name in variants})
    if warm:
        inputs = prepare(-1)
        for variant in variants.values():
            variant.work(inputs)
    names = list(variants)
    for number in range(rounds):
        inputs = prepare(number)
        gc.collect()
        for name in names[number % len(names) :] + names[: number % len(names)]:
            variant = variants[name]
            if variant.rounds is None or number < variant.rounds:
                timings.cpu[name][number], timings.wall[name][number] = _time(variant, inputs)
    return timings


def _time(variant: Variant, inputs: Any) -> tuple[float, float]:
    _synchronize()
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(variant.repeats):
        variant.work(inputs)
    _synchronize()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return cpu / variant.repeats, wall / variant.repeats


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
