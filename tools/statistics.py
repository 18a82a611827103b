"""The statistics inside the experiments, on numpy arrays."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["LogOdds", "benjamini_hochberg", "log_odds", "newcombe_interval", "robust_z"]

_Array = NDArray[np.float64]
_Z_95 = 1.959963984540054


@dataclass(frozen=True)
class LogOdds:
    """Log-odds ratios (nats) with their standard errors, any shape."""

    estimate: _Array
    error: _Array

    @property
    def z(self) -> _Array:
        """Estimate over standard error."""
        return self.estimate / self.error

    @property
    def low(self) -> _Array:
        """Lower end of the 95 % interval."""
        return self.estimate - _Z_95 * self.error

    @property
    def high(self) -> _Array:
        """Upper end of the 95 % interval."""
        return self.estimate + _Z_95 * self.error


def log_odds(
    first: ArrayLike,
    second: ArrayLike,
    *,
    first_n: ArrayLike,
    second_n: ArrayLike,
    rate: ArrayLike,
    strength: float,
) -> LogOdds:
    """Weighted log-odds ratios with an informative Dirichlet prior (Monroe, Colaresi & Quinn 2008, eq. 15 to 22).

    Both groups are shrunk towards one background rate, so that a rare feature needs more evidence to score.
    The variance keeps all four terms of the delta method, because a feature may occur in every reply.

    Args:
        first: in how many of the first group's replies each feature occurs (weights allowed).
        second: the same for the second group.
        first_n: number of replies in the first group.
        second_n: number of replies in the second group.
        rate: background rate of each feature, strictly between 0 and 1.
        strength: weight of the prior, in replies per group.
    """
    yes = strength * np.asarray(rate, dtype=np.float64)
    no = strength - yes
    in_first = np.asarray(first, dtype=np.float64) + yes
    in_second = np.asarray(second, dtype=np.float64) + yes
    not_first = np.asarray(first_n, dtype=np.float64) - np.asarray(first) + no
    not_second = np.asarray(second_n, dtype=np.float64) - np.asarray(second) + no
    estimate = np.log(in_first / not_first) - np.log(in_second / not_second)
    variance = 1 / in_first + 1 / not_first + 1 / in_second + 1 / not_second
    return LogOdds(estimate, np.sqrt(variance))


def benjamini_hochberg(p: ArrayLike) -> _Array:
    """Adjusted p-values (q) that control the false-discovery rate (Benjamini & Hochberg 1995)."""
    values = np.asarray(p, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    ranked = values[order] * len(values) / np.arange(1, len(values) + 1)
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(np.minimum.accumulate(ranked[::-1])[::-1], 1.0)
    return adjusted


def robust_z(values: ArrayLike, *, least_spread: float) -> _Array:
    """Distance from the median in units of the scaled median absolute deviation (Iglewicz & Hoaglin 1993).

    Args:
        values: the numbers, shape ``(n,)``.
        least_spread: lower bound of the spread, in the units of the values, so that a set of nearly equal
            numbers has no outliers by rounding alone.
    """
    numbers = np.asarray(values, dtype=np.float64)
    distance = numbers - np.median(numbers)
    spread = 1.4826 * np.median(np.abs(distance))
    return np.asarray(distance / max(float(spread), least_spread), dtype=np.float64)


def newcombe_interval(first: float, second: float, *, first_n: float, second_n: float) -> tuple[float, float]:
    """95 % interval of the difference of two independent shares, ``first / first_n - second / second_n``.

    The hybrid score interval without continuity correction (Newcombe 1998, Statistics in Medicine 17, 873-890, method
    10), which keeps its coverage at counts of none and all.
    """
    a, b = first / first_n, second / second_n
    a_low, a_high = _wilson(a, first_n)
    b_low, b_high = _wilson(b, second_n)
    return a - b - math.hypot(a - a_low, b_high - b), a - b + math.hypot(a_high - a, b - b_low)


def _wilson(share: float, n: float) -> tuple[float, float]:
    middle = share + _Z_95**2 / (2 * n)
    reach = _Z_95 * math.sqrt(share * (1 - share) / n + _Z_95**2 / (4 * n * n))
    scale = 1 + _Z_95**2 / n
    return (middle - reach) / scale, (middle + reach) / scale
