"""Paired differences between arms: the same case in the same epoch, played by both.

The p-value is of a sign-flip test over organisms: if two arms are alike, all differences on an organism are as likely
to have the other sign. The difference is taken over its cluster-robust standard error, so the test is exact for arms
that are alike on every organism, and is about the mean where they differ in opposite ways (Janssen, "Studentized
permutation tests for non-i.i.d. hypotheses", Statistics & Probability Letters 36, 1997). Within a family, Holm's
step-down keeps the chance of any false finding at the level (Holm, "A simple sequentially rejective multiple test
procedure", Scandinavian Journal of Statistics 6, 1979).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from marple.agent.evaluation.intervals import (
    Clustered,
    average,
    difference,
    mean_interval,
    no_interval,
    share_interval,
)
from marple.agent.evaluation.rows import Row
from marple.agent.evaluation.statistics import Estimate, stratum, values_of
from marple.tasks.aggregate import Mean, balanced, mean_of

__all__ = ["FAMILIES", "Comparison", "compare_arms", "holm", "sign_flip"]

FAMILIES = {
    "controls": "every arm against every control arm",
    "others": "the arms that are no controls, against each other",
}

_EXACT = 16
"""Up to this many organisms that differ every pattern of signs is tried."""
_DRAWS = 20_000

Pairs = Sequence[tuple[Row, float | None, float | None]]


@dataclass(frozen=True)
class Comparison:
    """One arm less another."""

    arm: str
    against: str
    family: str
    measure: str
    """``balanced_accuracy``; ``solved`` or ``cleared`` where there are no clean targets, or nothing else."""
    estimate: Estimate
    p: float | None
    """Two-sided, by sign flips over organisms; None where no pair is scored or there is a single organism."""
    p_holm: float | None
    """The same, adjusted within the family."""
    brier: Estimate
    """Difference in Brier loss: below 0 is better."""
    forecast_skill: Estimate

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        named = {name: getattr(self, name) for name in ("arm", "against", "family", "measure", "p", "p_holm")}
        return {
            **named,
            "difference": self.estimate.to_dict(),
            "brier": self.brier.to_dict(),
            "forecast_skill": self.forecast_skill.to_dict(),
        }


def compare_arms(
    rows: Sequence[Row],
    arms: Sequence[str],
    controls: Sequence[str],
    kinds: Mapping[str, frozenset[str]],
    *,
    chosen: Collection[str] = (),
) -> list[Comparison]:
    """Every comparison, those against control arms first.

    Args:
        rows: of all arms.
        arms: names of all arms.
        controls: those of them that are controls, the weakest first.
        kinds: by score, the kinds that have it.
        chosen: arms that play some of the cases by choice; they are compared on those, or not at all.
    """
    others = [arm for arm in arms if arm not in controls]
    pairs = [
        ("controls", arm, control) for at, control in enumerate(controls) for arm in (*others, *controls[at + 1 :])
    ]
    pairs += [("others", second, first) for first, second in combinations(others, 2)]
    by_arm = {arm: [row for row in rows if row.arm == arm] for arm in arms}
    found = []
    for family, arm, against in pairs:
        ours, theirs = by_arm[arm], by_arm[against]
        if {arm, against} & set(chosen):
            ours, theirs = _common(ours, theirs)
            if not ours:
                continue
        found.append(_compare(family, ours, theirs, arm, against, kinds))
    return _adjusted(found)


def _common(first: Sequence[Row], second: Sequence[Row]) -> tuple[list[Row], list[Row]]:
    """The rows of the cases that are planned for both; a sample that was not played has a row too."""
    both = {row.case for row in first} & {row.case for row in second}
    return [row for row in first if row.case in both], [row for row in second if row.case in both]


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted p-values in the order given: the smallest times how many there are, and so on, never falling."""
    order = sorted(range(len(p_values)), key=lambda at: p_values[at])
    adjusted, highest = [0.0] * len(p_values), 0.0
    for rank, at in enumerate(order):
        highest = max(highest, min(1.0, p_values[at] * (len(p_values) - rank)))
        adjusted[at] = highest
    return adjusted


def sign_flip(strata: Sequence[Sequence[tuple[str, float]]]) -> float | None:
    """Two-sided p-value of the mean over the strata of the mean difference, under random signs of the organisms.

    Exact up to 16 organisms that differ, otherwise by 20,000 draws with a fixed seed and the observed one among them.

    Args:
        strata: for each the organism and the difference of every pair.

    Returns:
        None for a single organism.
    """
    import numpy as np

    names = sorted({name for one in strata for name, _ in one})
    if len(names) < 2:
        return None
    place = {name: at for at, name in enumerate(names)}
    sums, sizes = np.zeros((2, len(strata), len(names)))
    for at, one in enumerate(strata):
        for name, delta in one:
            sums[at, place[name]] += delta / len(one) / len(strata)
            sizes[at, place[name]] += 1 / len(one)
    differing = np.flatnonzero(np.abs(sums).sum(axis=0))
    if not len(differing):
        return 1.0
    signs = np.ones((min(2 ** len(differing), _DRAWS) if len(differing) > _EXACT else 2 ** len(differing), len(names)))
    signs[:, differing] = _signs(len(differing), len(signs))
    values = _studentized(signs, sums, sizes)
    observed = _studentized(np.ones((1, len(names))), sums, sizes)[0] * (1 - 1e-9)
    as_far = int(np.sum(values >= observed))
    return as_far / len(signs) if len(differing) <= _EXACT else (1 + as_far) / (1 + len(signs))


def _signs(organisms: int, patterns: int) -> Any:
    """Every pattern of signs, or as many as are asked for at random."""
    import numpy as np

    if organisms <= _EXACT:
        return 1 - 2 * ((np.arange(2**organisms)[:, None] >> np.arange(organisms)) & 1)
    return np.random.default_rng(0).choice((-1, 1), size=(patterns, organisms))


def _studentized(signs: Any, sums: Any, sizes: Any) -> Any:
    """The absolute mean difference over its cluster-robust standard error, for each pattern of signs."""
    import numpy as np

    means = signs @ sums.T
    parts = signs * sums.sum(axis=0) - means @ sizes
    value, error = np.abs(means.sum(axis=1)), np.sqrt((parts**2).sum(axis=1))
    smallest = 1e-9 * np.abs(sums).sum()
    return np.where(value <= smallest, 0.0, value / np.maximum(error, smallest))


def _adjusted(found: Sequence[Comparison]) -> list[Comparison]:
    adjusted = list(found)
    for family in FAMILIES:
        members = [(at, p) for at, one in enumerate(found) if one.family == family and (p := one.p) is not None]
        for (at, _), p in zip(members, holm([p for _, p in members]), strict=True):
            adjusted[at] = replace(found[at], p_holm=p)
    return adjusted


def _compare(
    family: str,
    rows: Sequence[Row],
    control: Sequence[Row],
    arm: str,
    against: str,
    kinds: Mapping[str, frozenset[str]],
) -> Comparison:
    solved, cleared = (_paired(stratum(rows, clean=c), stratum(control, clean=c)) for c in (False, True))
    strata = {"solved": solved, "cleared": cleared}
    usable = {name: pairs for name, pairs in strata.items() if any(_known(pairs))} or strata
    measure = "balanced_accuracy" if len(usable) == 2 else next(iter(usable))
    estimate, p = _marks(list(usable.values()))
    means = {}
    for name in ("brier", "forecast_skill"):
        ours, theirs = (values_of(one, name, kinds[name]) for one in (rows, control))
        means[name] = _difference_of_means(_paired(ours, theirs), reach=-2.0 if name == "brier" else 4.0)
    return Comparison(arm, against, family, measure, estimate, p, None, means["brier"], means["forecast_skill"])


def _paired(first: Sequence[tuple[Row, float | None]], second: Sequence[tuple[Row, float | None]]) -> Pairs:
    """Each case and epoch that either has; a sample that one has not is missing."""
    ours = {(row.case, row.epoch): (row, value) for row, value in first}
    theirs = {(row.case, row.epoch): (row, value) for row, value in second}
    pairs = []
    for key in sorted(ours.keys() | theirs.keys()):
        row = (ours.get(key) or theirs[key])[0]
        pairs.append((row, ours.get(key, (row, None))[1], theirs.get(key, (row, None))[1]))
    return pairs


def _known(pairs: Pairs) -> list[tuple[str, float, float]]:
    return [(row.organism, ours, theirs) for row, ours, theirs in pairs if ours is not None and theirs is not None]


def _marks(strata: Sequence[Pairs]) -> tuple[Estimate, float | None]:
    """The difference of a share, or of the mean of two shares, and its p-value."""
    parts = [_difference_mean(pairs, 1.0) for pairs in strata]
    mean = parts[0] if len(parts) == 1 else balanced(*parts)
    known = [_known(pairs) for pairs in strata]
    if not all(known):
        return Estimate(mean, no_interval("no case was scored for both arms")), None
    sides = [[_share(one, side) for one in known] for side in (1, 2)]
    first, second = (one[0] if len(one) == 1 else average(one[0], one[1], names=("solved", "cleared")) for one in sides)
    deltas = [[(name, ours - theirs) for name, ours, theirs in one] for one in known]
    return Estimate(mean, difference(first, second)), sign_flip(deltas)


def _share(known: Sequence[tuple[str, float, float]], side: int) -> Clustered:
    return share_interval([float(one[side]) for one in known], [one[0] for one in known])


def _difference_mean(pairs: Pairs, reach: float) -> Mean:
    """``reach`` is the best difference that a pair can have, below 0 where less is better."""
    deltas = [None if ours is None or theirs is None else ours - theirs for _, ours, theirs in pairs]
    return mean_of(deltas, worst=-reach, best=reach)


def _difference_of_means(pairs: Pairs, *, reach: float) -> Estimate:
    mean = _difference_mean(pairs, reach)
    known = _known(pairs)
    if not known:
        return Estimate(mean, no_interval("no case was scored for both arms"))
    deltas, names = [ours - theirs for _, ours, theirs in known], [name for name, _, _ in known]
    found = mean_interval(deltas, names, least=-abs(reach), most=abs(reach))
    return Estimate(mean, found.interval)
