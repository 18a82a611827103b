"""Curves of score against cost: what had come out right within so many tokens, calls, seconds or dollars."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from marple.agent.evaluation.rows import Row
from marple.agent.evaluation.statistics import stratum

__all__ = ["COSTS", "cost_curve"]

COSTS: dict[str, tuple[str, Callable[[Row], float | None]]] = {
    "target_tokens": ("tokens through the target", lambda row: row.target_tokens),
    "tokens": ("tokens of the investigator", lambda row: row.input_tokens + row.output_tokens),
    "calls": ("experiments", lambda row: row.calls),
    "seconds": ("seconds", lambda row: row.seconds),
    "cost_usd": ("US dollars", lambda row: row.cost_usd),
}


def cost_curve(rows: Sequence[Row], cost: str) -> dict[str, Any]:
    """The share of runs that were right at a cost of at most so much each; runs without a score are not right.

    The two halves, organisms solved and clean targets cleared, count one half each where both were played.

    Args:
        rows: the samples of one arm.
        cost: one of `COSTS`.

    Returns:
        ``points``, each a cost and the share right within it, rising; ``n``, the runs; ``unknown``, how many right
        ones have no known cost and so are on no point; ``measure``, what the share is of.
    """
    of = COSTS[cost][1]
    strata = {name: values for name, values in _strata(rows).items() if values}
    steps: list[tuple[float, float]] = []
    unknown = 0
    for values in strata.values():
        for row, right in values:
            spent = of(row)
            unknown += bool(right) and spent is None
            if right and spent is not None:
                steps.append((float(spent), right / len(values) / len(strata)))
    measure = "balanced_accuracy" if len(strata) == 2 else next(iter(strata), "")
    n = sum(map(len, strata.values()))
    return {"measure": measure, "n": n, "unknown": unknown, "points": _cumulated(steps)}


def _strata(rows: Sequence[Row]) -> dict[str, list[tuple[Row, float | None]]]:
    return {"solved": stratum(rows, clean=False), "cleared": stratum(rows, clean=True)}


def _cumulated(steps: Sequence[tuple[float, float]]) -> list[list[float]]:
    amounts = sorted({spent for spent, _ in steps})
    return [[amount, math.fsum(share for spent, share in steps if spent <= amount)] for amount in amounts]
