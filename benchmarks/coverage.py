"""How often the 95 % intervals of an evaluation hold the true value: the table in docs/evaluation.md.

Run ``python -m benchmarks.coverage [--repeats 1000] [--bootstraps 200]``: one row for each design of organisms, clean
targets, and true rates of two arms. Rates differ between organisms (logit-normal with spread 1 and 3, correlated 0.7
between the arms), every organism is played three times. A method's number is the share of its intervals, over all
repeats and both spreads, that hold the truth; an interval that is refused counts as one that does not. A second
table has how often arms of the same balanced accuracy are found to differ.
"""

from __future__ import annotations

import argparse
import functools
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marple.agent.evaluation.comparisons import sign_flip
from marple.agent.evaluation.intervals import Clustered, Interval, average, difference, mean_interval, share_interval

EPOCHS = 3
SPREADS = (1.0, 3.0)
TOGETHER = 0.7


@dataclass(frozen=True)
class Design:
    """Numbers of organisms and clean targets, and the rates at which two arms solve and clear them."""

    organisms: int
    clean: int
    solved: tuple[float, float]
    cleared: tuple[float, float]

    def __str__(self) -> str:
        return (
            f"{self.organisms} + {self.clean}, {self.solved[0]}/{self.cleared[0]}, {self.solved[1]}/{self.cleared[1]}"
        )


SIZES = ((8, 4), (12, 6), (12, 12), (25, 12))
RATES = (((0.5, 0.5), (0.8, 0.8)), ((0.8, 0.6), (0.9, 0.9)), ((0.9, 0.3), (0.95, 0.7)), ((0.3, 0.05), (0.95, 0.5)))
DESIGNS = tuple(Design(*size, *rates) for size in SIZES for rates in RATES)


@functools.cache
def intercept(rate: float, spread: float) -> float:
    """What makes a logit-normal rate have this mean."""
    from scipy.optimize import brentq  # type: ignore[import-untyped]
    from scipy.special import expit  # type: ignore[import-untyped]

    points, weights = np.polynomial.hermite_e.hermegauss(61)
    weights = weights / weights.sum()
    return float(brentq(lambda at: float((weights * expit(at + spread * points)).sum()) - rate, -40, 40))


def drawn(rng: np.random.Generator, rates: tuple[float, float], spread: float, n: int) -> list[NDArray[np.float64]]:
    """What two arms got on ``n`` organisms, shape ``(n, EPOCHS)`` each, 0 or 1."""
    from scipy.special import expit

    shared = rng.standard_normal(n)
    arms = []
    for rate in rates:
        own = np.sqrt(TOGETHER) * shared + np.sqrt(1 - TOGETHER) * rng.standard_normal(n)
        chance = expit(intercept(rate, spread) + spread * own)
        arms.append((rng.random((n, EPOCHS)) < chance[:, None]).astype(float))
    return arms


def clustered(values: NDArray[np.float64], prefix: str, *, shares: bool = True) -> Clustered:
    names = [f"{prefix}{at}" for at in range(len(values)) for _ in range(EPOCHS)]
    return (share_interval if shares else mean_interval)(list(values.ravel()), names)


def intervals(rng: np.random.Generator, design: Design, spread: float) -> Iterator[tuple[str, float, Interval]]:
    """The intervals of one simulated evaluation, by name and with the truth that each is to hold."""
    solved = drawn(rng, design.solved, spread, design.organisms)
    cleared = drawn(rng, design.cleared, spread, design.clean)
    shares = [(clustered(one, "o"), clustered(other, "c")) for one, other in zip(solved, cleared, strict=True)]
    both = [average(one, other) for one, other in shares]
    truths = [(one + other) / 2 for one, other in zip(design.solved, design.cleared, strict=True)]
    yield "solved", design.solved[0], shares[0][0].interval
    yield "solved, t", design.solved[0], clustered(solved[0], "o", shares=False).interval
    yield "balanced", truths[0], both[0].interval
    yield "difference", truths[0] - truths[1], difference(both[0], both[1])
    # A loss such as Brier's: near 0 where it is right, and anything up to 2 where it is not.
    loss = np.where(solved[0] > 0, rng.beta(1, 9, solved[0].shape), 2 * rng.beta(4, 2, solved[0].shape))
    yield "Brier", design.solved[0] * 0.1 + (1 - design.solved[0]) * 4 / 3, clustered(loss, "o", shares=False).interval


def bootstrapped(rng: np.random.Generator, design: Design, spread: float) -> Iterator[tuple[str, float, Interval]]:
    """Intervals of the share solved by bootstrap over organisms, and of balanced accuracy by percentiles."""
    import warnings

    from scipy.stats import bootstrap  # type: ignore[import-untyped]

    solved = drawn(rng, design.solved, spread, design.organisms)[0].mean(axis=1)
    cleared = drawn(rng, design.cleared, spread, design.clean)[0].mean(axis=1)
    for method in ("percentile", "BCa"):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # BCa of equal values has no interval
            low, high = bootstrap((solved,), np.mean, method=method, n_resamples=999, rng=rng).confidence_interval
        found = Interval(None, None) if np.isnan(low) else Interval(float(low), float(high))
        yield f"solved, {method}", design.solved[0], found
    picks = [one[rng.integers(0, len(one), (999, len(one)))].mean(axis=1) for one in (solved, cleared)]
    low, high = np.percentile((picks[0] + picks[1]) / 2, (2.5, 97.5))
    yield "balanced, percentile", (design.solved[0] + design.cleared[0]) / 2, Interval(float(low), float(high))


def coverage(design: Design, *, repeats: int, bootstraps: int = 0, seed: int = 0) -> dict[str, float]:
    """By method, the share of intervals that hold the truth."""
    rng = np.random.default_rng(seed)
    held: Counter[str] = Counter()
    tried: Counter[str] = Counter()
    for make, times in ((intervals, repeats), (bootstrapped, bootstraps)):
        for at in range(times):
            for name, truth, found in make(rng, design, SPREADS[at % len(SPREADS)]):
                tried[name] += 1
                held[name] += found.low is not None and found.high is not None and found.low <= truth <= found.high
    return {name: held[name] / tried[name] for name in tried}


ALIKE = (((0.5, 0.5), (0.8, 0.8)), ((0.9, 0.9), (0.95, 0.95)), ((0.7, 0.5), (0.7, 0.9)))
"""Rates of two arms of the same balanced accuracy; the last gains on organisms what it loses on clean targets."""


def false_findings(design: Design, *, repeats: int, seed: int = 0) -> float:
    """The share of evaluations in which two arms of the same balanced accuracy differ with p <= 0.05."""
    rng = np.random.default_rng(seed)
    found = 0
    for at in range(repeats):
        spread = SPREADS[at % len(SPREADS)]
        strata = []
        for prefix, rates, n in (("o", design.solved, design.organisms), ("c", design.cleared, design.clean)):
            first, second = drawn(rng, rates, spread, n)
            strata.append([(f"{prefix}{i}", float(d)) for i, row in enumerate(first - second) for d in row])
        p = sign_flip(strata)
        found += p is not None and p <= 0.05
    return found / repeats


def print_false_findings(repeats: int) -> None:
    print("\n| organisms + clean, rates of one arm, of the other | p <= 0.05 |\n|---|---|")
    for size in SIZES:
        for rates in ALIKE:
            design = Design(*size, *rates)
            print(f"| {design} | {false_findings(design, repeats=repeats):.3f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--bootstraps", type=int, default=200)
    arguments = parser.parse_args()
    rows = [
        (design, coverage(design, repeats=arguments.repeats, bootstraps=arguments.bootstraps)) for design in DESIGNS
    ]
    names = list(rows[0][1])
    print("| organisms + clean, rates of one arm, of the other | " + " | ".join(names) + " |")
    print("|---" * (len(names) + 1) + "|")
    for design, found in rows:
        print(f"| {design} | " + " | ".join(f"{found[name]:.3f}" for name in names) + " |")
    means = {name: np.mean([found[name] for _, found in rows]) for name in names}
    print("| mean | " + " | ".join(f"{means[name]:.3f}" for name in names) + " |")
    print_false_findings(arguments.repeats // 2)


if __name__ == "__main__":
    main()
