"""The area under the ROC curve, with an interval for one score and for the difference of two."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Auroc", "auroc", "auroc_difference", "measure_auroc"]

_Array = NDArray[np.float64]
_Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Auroc:
    """An area under the ROC curve with its interval."""

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float]:
        """As JSON values."""
        return {"auroc": self.value, "ci_low": self.low, "ci_high": self.high}

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}]"


def auroc(scores: _Array, labels: _Bools) -> float:
    """Probability that a positive row scores above a negative one, ties counting half (Hanley & McNeil 1982).

    Args:
        scores: ``(row,)``.
        labels: ``(row,)``, both values present.
    """
    negatives = np.sort(scores[~labels])
    positives = scores[labels]
    below = np.searchsorted(negatives, positives, side="left") + np.searchsorted(negatives, positives, side="right")
    return float(below.sum() / (2 * len(negatives) * len(positives)))


def measure_auroc(scores: _Array, labels: _Bools, *, groups: NDArray[np.int64] | None = None, z: float = 1.96) -> Auroc:
    """The area with an interval: DeLong, DeLong & Clarke-Pearson (1988), or Obuchowski (1997) for rows in groups.

    Where few rows are nearly separated the variance estimated from them is too small, so the interval is at least as
    wide as the score interval of Newcombe (2006, method 5), which does not shrink to a point at an area of 1.

    Args:
        scores: ``(row,)``.
        labels: ``(row,)``, both values present.
        groups: ``(row,)``: rows of a group are not independent; None where all are.
        z: half-width of the interval in standard errors.
    """
    value = auroc(scores, labels)
    reach = z * math.sqrt(_variance(_influence(scores, labels), labels, groups))
    own = np.arange(len(labels)) if groups is None else groups
    low, high = _score_interval(value, min(len(np.unique(own[side])) for side in (labels, ~labels)), z)
    return Auroc(value, max(0.0, min(value - reach, low)), min(1.0, max(value + reach, high)))


def auroc_difference(
    first: _Array, second: _Array, labels: _Bools, *, groups: NDArray[np.int64] | None = None, z: float = 1.96
) -> tuple[float, float, float]:
    """Difference of two correlated areas on the same rows, with the ends of its interval (DeLong et al. 1988).

    Args:
        first: one score, ``(row,)``.
        second: another score of the same rows.
        labels: ``(row,)``.
        groups: as in ``measure_auroc``.
        z: half-width of the interval in standard errors.
    """
    difference = auroc(first, labels) - auroc(second, labels)
    influence = _influence(first, labels) - _influence(second, labels)
    reach = z * math.sqrt(_variance(influence, labels, groups))
    return difference, difference - reach, difference + reach


def _influence(scores: _Array, labels: _Bools) -> _Array:
    """Each row's structural component less the area: over the rows of one class these average to 0."""
    negatives, positives = np.sort(scores[~labels]), np.sort(scores[labels])
    found = np.empty(len(scores))
    found[labels] = _midranks(negatives, scores[labels]) / len(negatives)
    found[~labels] = 1 - _midranks(positives, scores[~labels]) / len(positives)
    for side in (labels, ~labels):
        found[side] -= found[side].mean()
    return found


def _midranks(ordered: _Array, values: _Array) -> _Array:
    below = np.searchsorted(ordered, values, side="left") + np.searchsorted(ordered, values, side="right")
    return np.asarray(below / 2, dtype=np.float64)


def _variance(influence: _Array, labels: _Bools, groups: NDArray[np.int64] | None) -> float:
    counts = np.where(labels, labels.sum(), (~labels).sum())
    if groups is None:
        return float((influence**2 / (counts * np.maximum(counts - 1, 1))).sum())
    _, place = np.unique(groups, return_inverse=True)
    sums = np.bincount(place, weights=influence / counts)
    return float((sums**2).sum() * len(sums) / max(1, len(sums) - 1))


def _score_interval(value: float, units: int, z: float) -> tuple[float, float]:
    """The areas whose own standard error (Hanley & McNeil 1982) does not put the observed one out of reach."""

    def beyond(area: float) -> bool:
        larger = units - 1
        spread = area * (1 - area)
        spread *= 1 + larger * (1 - area) / (2 - area) + larger * area / (1 + area)
        return abs(value - area) > z * math.sqrt(spread) / units

    ends = []
    for edge in (0.0, 1.0):
        inside, outside = value, edge
        if value == edge or not beyond(edge):
            ends.append(edge)
            continue
        for _ in range(50):
            middle = (inside + outside) / 2
            inside, outside = (inside, middle) if beyond(middle) else (middle, outside)
        ends.append(inside)
    return ends[0], ends[1]
