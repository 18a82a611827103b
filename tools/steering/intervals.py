"""Intervals of a mean over few prompts."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["mean_interval", "prediction_bound", "student_quantile"]


def mean_interval(
    values: NDArray[np.float64], *, shares: float = 0.0, level: float = 0.95
) -> tuple[float, float, float]:
    """Mean and Student's interval over independent prompts.

    Args:
        values: one number per prompt, shape ``(prompt,)``.
        shares: half the width of the values' range when they are shares (0.5) or differences of shares (1.0); two
            pseudo-prompts then widen the interval, as in Agresti & Min (2005), so that a handful of equal prompts is no
            certainty. 0 for unbounded values.
        level: coverage.

    Returns:
        The plain mean, and the ends of the interval.
    """
    mean = float(values.mean())
    if len(values) + 2 * (shares > 0) < 2:
        return mean, -math.inf, math.inf
    if shares:
        middle = 0.5 if shares == 0.5 else 0.0
        values = np.concatenate([values, [middle - shares / math.sqrt(2), middle + shares / math.sqrt(2)]])
    error = float(values.std(ddof=1)) / math.sqrt(len(values))
    reach = student_quantile(0.5 + level / 2, len(values) - 1) * error
    centre = float(values.mean())
    low, high = centre - reach, centre + reach
    return (mean, max(0.0, low), min(1.0, high)) if shares == 0.5 else (mean, low, high)


def prediction_bound(values: NDArray[np.float64], *, level: float = 0.95) -> float:
    """Upper end of the two-sided prediction interval for one more draw from where the values came from."""
    count = len(values)
    if count < 2:
        return math.inf
    reach = student_quantile(0.5 + level / 2, count - 1) * float(values.std(ddof=1)) * math.sqrt(1 + 1 / count)
    return float(values.mean()) + reach


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile above the median of Student's t with whole degrees of freedom.

    Bisection on the closed form of the distribution function (Abramowitz & Stegun 1964, 26.7.3 and 26.7.4).
    """
    low, high = 0.0, 1e6
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if _student_cdf(middle, freedom) < probability else (low, middle)
    return (low + high) / 2


def _student_cdf(t: float, freedom: int) -> float:
    angle = math.atan2(t, math.sqrt(freedom))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2 == 1
    term = cosine if odd else 1.0
    total = 0.0 if freedom == 1 else term
    start = 2 if odd else 1
    for at in range(start, freedom - 1, 2):
        term *= at / (at + 1) * cosine * cosine
        total += term
    inside = 2 / math.pi * (angle + sine * total) if odd else sine * total
    return 0.5 + inside / 2
