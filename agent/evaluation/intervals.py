"""95 % intervals for scores whose runs come in clusters: several epochs and cases on one organism are not independent.

Shares (solved, cleared, and their mean, the balanced accuracy) get score intervals with the number of runs replaced by
the effective one; unbounded means get a cluster-robust t interval. ``benchmarks/coverage.py`` measures how often each
holds the true value, beside the bootstrap, which at these sizes does not.

Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22 (1927); Kish, "Survey sampling"
(1965), for the design effect; Newcombe, "Improved confidence intervals for the difference between binomial proportions
based on paired data", Statistics in Medicine 17 (1998), and Zou and Donner, "Construction of confidence limits about
effect measures", Statistics in Medicine 27 (2008), for joining two intervals; Cameron and Miller, "A practitioner's
guide to cluster-robust inference", Journal of Human Resources 50 (2015).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Clustered", "Interval", "average", "difference", "mean_interval", "no_interval", "share_interval"]

_Z = 1.959963984540054
"""The 97.5 % point of the normal distribution."""

_ONE = "only 1 organism"

LEAST_ORGANISMS = 2
"""With fewer nothing is known of how organisms differ."""


@dataclass(frozen=True)
class Interval:
    """A 95 % interval, or why there is none."""

    low: float | None
    high: float | None
    method: str = ""
    organisms: int = 0
    """How many clusters it rests on."""
    df: float | None = None
    """Degrees of freedom of a t interval; None for a score interval, which uses the normal distribution."""
    why: str = ""
    """Why there is no interval; empty where there is one."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dict(vars(self))


def no_interval(why: str, organisms: int = 0) -> Interval:
    """The lack of an interval, with its reason."""
    return Interval(None, None, organisms=organisms, why=why)


@dataclass(frozen=True)
class Clustered:
    """A mean, its interval, and what each organism adds to its error."""

    value: float
    interval: Interval
    influence: Mapping[str, float]
    """By organism: the sum of its runs' distances from the mean, over the number of runs."""

    @property
    def variance(self) -> float:
        """Cluster-robust variance of the mean (CR1: with the factor G / (G - 1))."""
        return covariance(self, self)


def covariance(first: Clustered, second: Clustered) -> float:
    """Cluster-robust covariance of two means; organisms that only one has add nothing."""
    both = first.influence.keys() & second.influence.keys()
    organisms = len(first.influence.keys() | second.influence.keys())
    if organisms < LEAST_ORGANISMS:
        return 0.0
    products = math.fsum(first.influence[name] * second.influence[name] for name in sorted(both))
    return organisms / (organisms - 1) * products


def share_interval(values: Sequence[bool | float], organisms: Sequence[str]) -> Clustered:
    """A share with Wilson's score interval at the effective number of runs.

    The design effect is the cluster-robust variance over that of independent runs, kept between 1 and what it would be
    if all runs of an organism came out alike. Where all runs are equal their likeness is unknown and counted as full:
    twelve organisms solved thrice each count as twelve runs, not as 36.

    Args:
        values: one a run, 0 or 1.
        organisms: the cluster of each, as many.
    """
    value, influence, sizes = _influence(values, organisms)
    if len(sizes) < LEAST_ORGANISMS:
        return Clustered(value, no_interval(_ONE, len(sizes)), influence)
    n = math.fsum(sizes.values())
    fewest = n * n / math.fsum(size * size for size in sizes.values())
    bare = Clustered(value, no_interval("", len(sizes)), influence).variance
    effective = fewest if bare == 0 else min(n, max(fewest, value * (1 - value) / bare))
    low, high = _wilson(value, effective)
    interval = Interval(low, high, f"score interval, {effective:.1f} effective runs", len(sizes))
    return Clustered(value, interval, influence)


def mean_interval(
    values: Sequence[float], organisms: Sequence[str], *, least: float = -math.inf, most: float = math.inf
) -> Clustered:
    """A mean with a cluster-robust t interval, G - 1 degrees of freedom for G organisms, cut to what a mean can be.

    Args:
        values: one a run, in any unit.
        organisms: the cluster of each, as many.
        least: the smallest value that there can be.
        most: the largest one.
    """
    from scipy.special import stdtrit  # type: ignore[import-untyped]  # a sixth of the import of scipy.stats

    value, influence, sizes = _influence(values, organisms)
    bare = Clustered(value, no_interval("", len(sizes)), influence)
    if len(sizes) < LEAST_ORGANISMS:
        return Clustered(value, no_interval(_ONE, len(sizes)), influence)
    # Distances from a mean of equal floats are rounding, not spread.
    if math.sqrt(bare.variance) <= 1e-12 * max(1.0, abs(value)):
        return Clustered(value, no_interval("all organisms are equal"), influence)
    df = len(sizes) - 1
    reach = float(stdtrit(df, 0.975)) * math.sqrt(bare.variance)
    low, high = max(least, value - reach), min(most, value + reach)
    interval = Interval(low, high, "cluster-robust t", len(sizes), df)
    return Clustered(value, interval, influence)


def average(first: Clustered, second: Clustered, *, names: tuple[str, str] = ("first", "second")) -> Clustered:
    """The mean of two shares, such as balanced accuracy, each counting one half.

    The distances from each share to its own limits are joined as if they were standard errors, with the correlation
    that organisms which are in both bring.
    """
    value = (first.value + second.value) / 2
    organisms = sorted(first.influence.keys() | second.influence.keys())
    influence = {name: (first.influence.get(name, 0.0) + second.influence.get(name, 0.0)) / 2 for name in organisms}
    lacking = [
        f"{name}: {one.interval.why}" for name, one in zip(names, (first, second), strict=True) if one.interval.why
    ]
    if lacking:
        return Clustered(value, no_interval("; ".join(lacking), len(organisms)), influence)
    together = _correlation(first, second)
    low = value - _joined(_below(first), _below(second), together) / 2
    high = value + _joined(_above(first), _above(second), together) / 2
    interval = Interval(max(0.0, low), min(1.0, high), "two score intervals joined", len(organisms))
    return Clustered(value, interval, influence)


def difference(first: Clustered, second: Clustered) -> Interval:
    """The interval of ``first - second``, two means over the same runs of the same organisms.

    The two intervals are joined with the correlation between the arms over organisms, so what makes an organism hard
    for both does not widen the difference.
    """
    organisms = len(first.influence.keys() | second.influence.keys())
    why = first.interval.why or second.interval.why
    if why:
        return no_interval(why, organisms)
    together = -_correlation(first, second)
    value = first.value - second.value
    low = value - _joined(_below(first), _above(second), together)
    high = value + _joined(_above(first), _below(second), together)
    return Interval(max(-1.0, low), min(1.0, high), "two score intervals joined, paired", organisms)


def _influence(
    values: Sequence[bool | float], organisms: Sequence[str]
) -> tuple[float, dict[str, float], dict[str, int]]:
    if not values or len(values) != len(organisms):
        raise ValueError(
            f"{len(values)} values of {len(organisms)} organisms; there must be one each, and at least one"
        )
    n = len(values)
    value = math.fsum(values) / n
    sums: dict[str, list[float]] = {}
    for number, name in zip(values, organisms, strict=True):
        sums.setdefault(name, []).append(float(number) - value)
    names = sorted(sums)
    return value, {name: math.fsum(sums[name]) / n for name in names}, {name: len(sums[name]) for name in names}


def _wilson(share: float, n: float) -> tuple[float, float]:
    middle = share + _Z**2 / (2 * n)
    reach = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n * n))
    scale = 1 + _Z**2 / n
    # The ends of a share of none or all are exact but for rounding.
    return max(0.0, min(share, (middle - reach) / scale)), min(1.0, max(share, (middle + reach) / scale))


def _correlation(first: Clustered, second: Clustered) -> float:
    spread = math.sqrt(first.variance * second.variance)
    return 0.0 if spread == 0 else max(-1.0, min(1.0, covariance(first, second) / spread))


def _joined(one: float, other: float, together: float) -> float:
    return math.sqrt(max(0.0, one * one + 2 * together * one * other + other * other))


def _below(one: Clustered) -> float:
    assert one.interval.low is not None
    return one.value - one.interval.low


def _above(one: Clustered) -> float:
    assert one.interval.high is not None
    return one.interval.high - one.value
