"""What a group of samples scored: each measure with its interval, and what the missing ones could make of it."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marple.agent.evaluation.intervals import (
    Clustered,
    Interval,
    average,
    mean_interval,
    no_interval,
    share_interval,
)
from marple.agent.evaluation.rows import Row
from marple.tasks.aggregate import Mean, balanced, mean_of

__all__ = ["MEASURES", "NO_BALANCE", "Estimate", "costs", "estimates", "outcomes", "stratum", "values_of"]

_BOUNDS = {"brier": (2.0, 0.0), "forecast_skill": (-3.0, 1.0)}
"""Worst and best value that a run can have; 0 and 1 for the others."""

MEASURES = ("balanced_accuracy", "solved", "cleared", "false_alarms", "brier", "forecast_skill", "claims_replicated")
"""Every measure, in the order of the tables."""

NO_BALANCE = "there must be both organisms and clean targets"


@dataclass(frozen=True)
class Estimate:
    """A mean over what was scored, its 95 % interval, and its bounds over everything."""

    mean: Mean
    interval: Interval

    def to_dict(self) -> dict[str, Any]:
        """JSON values, flat."""
        return {**self.mean.to_dict(), **self.interval.to_dict()}


def estimates(rows: Sequence[Row], kinds_with: Mapping[str, frozenset[str]]) -> dict[str, Estimate]:
    """Every measure over some samples.

    Args:
        rows: the samples of one arm.
        kinds_with: by measure, the kinds that have it; see `values_of`.
    """
    solved, cleared = stratum(rows, clean=False), stratum(rows, clean=True)
    alarms = [(row, None if value is None else 1.0 - value) for row, value in cleared]
    found = {
        "balanced_accuracy": _balanced(solved, cleared),
        "solved": _estimate(solved, share_interval, "no target that hides something was played"),
        "cleared": _estimate(cleared, share_interval, "no clean target was played"),
        "false_alarms": _estimate(alarms, share_interval, "no clean target was played", worst=1.0, best=0.0),
    }
    for name in ("brier", "forecast_skill"):
        worst, best = _BOUNDS[name]
        values = values_of(rows, name, kinds_with[name])
        found[name] = _estimate(values, _within(worst, best), "no kind played has it", worst=worst, best=best)
    claims = [(row, row.claims_replicated / row.claims) for row in rows if row.claims]
    found["claims_replicated"] = _estimate(claims, _within(0.0, 1.0), "no answer has a claim")
    return found


def stratum(rows: Sequence[Row], *, clean: bool) -> list[tuple[Row, float | None]]:
    """Whether each clean target was cleared, or each other one solved; None for a sample without a score."""
    chosen = [row for row in rows if row.clean is clean]
    marks = [(row, row.cleared if clean else row.solved) for row in chosen]
    # A kind without clean twins has nothing to clear.
    return [(row, None if mark is None else float(mark)) for row, mark in marks if mark is not None or not row.scored]


def values_of(rows: Sequence[Row], name: str, kinds: frozenset[str]) -> list[tuple[Row, float | None]]:
    """A score of each sample whose kind has it; None where it is missing."""
    known = [row for row in rows if row.clean is not None and row.kind in kinds]
    return [(row, getattr(row, name) if row.scored else None) for row in known]


def kinds_with(rows: Sequence[Row]) -> dict[str, frozenset[str]]:
    """By score, the kinds that have it.

    A kind of which nothing was scored counts as having it: what is missing is to be seen.
    """
    scored = {row.kind for row in rows if row.scored}
    unknown = {row.kind for row in rows} - scored
    return {
        "brier": frozenset(unknown | {row.kind for row in rows if row.brier is not None}),
        "forecast_skill": frozenset(unknown | {row.kind for row in rows if row.scored and "forecast" in row.scores}),
    }


def outcomes(rows: Sequence[Row]) -> dict[str, int]:
    """How many samples ended how, the most frequent first."""
    counted = Counter(row.status for row in rows)
    return dict(sorted(counted.items(), key=lambda one: (-one[1], one[0])))


def costs(rows: Sequence[Row]) -> dict[str, Any]:
    """What the samples used, by mean over those that were begun, and in US dollars over all.

    Returns:
        ``begun``; the means ``turns``, ``calls``, ``tokens`` (of the investigator, in and out), ``target_tokens`` and
        ``seconds``, None where none was begun; ``cost_usd`` (the sum of known prices) and ``cost_unknown`` (how many
        runs have none).
    """
    begun = [row for row in rows if row.run and row.status != "not_run"]
    amounts: dict[str, Callable[[Row], float]] = {
        "turns": lambda row: row.turns,
        "calls": lambda row: row.calls,
        "tokens": lambda row: row.input_tokens + row.output_tokens,
        "target_tokens": lambda row: row.target_tokens,
        "seconds": lambda row: row.seconds,
    }
    means = {name: math.fsum(map(of, begun)) / len(begun) if begun else None for name, of in amounts.items()}
    known = [row.cost_usd for row in begun if row.cost_usd is not None]
    return {"begun": len(begun), **means, "cost_usd": math.fsum(known), "cost_unknown": len(begun) - len(known)}


def _within(one: float, other: float) -> Callable[[Sequence[float], Sequence[str]], Clustered]:
    """The interval of a mean of values between two bounds."""
    return functools.partial(mean_interval, least=min(one, other), most=max(one, other))


def _estimate(
    values: Sequence[tuple[Row, float | None]],
    interval: Callable[[Sequence[float], Sequence[str]], Clustered],
    without: str,
    *,
    worst: float = 0.0,
    best: float = 1.0,
) -> Estimate:
    mean = mean_of([value for _, value in values], worst=worst, best=best)
    known = [(value, row.organism) for row, value in values if value is not None]
    if not known:
        return Estimate(mean, no_interval("nothing was scored" if values else without))
    return Estimate(mean, interval([value for value, _ in known], [name for _, name in known]).interval)


def _balanced(solved: Sequence[tuple[Row, float | None]], cleared: Sequence[tuple[Row, float | None]]) -> Estimate:
    means = [mean_of([value for _, value in values], worst=0, best=1) for values in (solved, cleared)]
    known = [[(value, row.organism) for row, value in values if value is not None] for values in (solved, cleared)]
    if not all(known):
        return Estimate(balanced(*means), no_interval(NO_BALANCE))
    shares = [share_interval([v for v, _ in one], [name for _, name in one]) for one in known]
    return Estimate(balanced(*means), average(*shares, names=("solved", "cleared")).interval)
