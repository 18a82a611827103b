"""What a probe may claim.

A probe claims nothing unless, at its best layer,

1. each class has at least eight rows (or groups) of its own;
2. its cross-validated AUROC exceeds what shuffled labels reach with the same search over strengths and layers: 95 % of
   the shuffles, or, where features outnumber the rows that a fold trains on, every one of them; and its 95 % interval
   lies above 0.5. Shuffled labels are fitted in the same folds, so whatever a wide model can make out of few rows by
   chance, they have it too;
3. it exceeds each baseline on the same rows by more than the interval of the difference (DeLong et al. 1988,
   corrected for the number of layers searched). If a baseline within reach is above chance itself, that is the
   explanation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from marple.tools.probes.auroc import Auroc, auroc_difference, measure_auroc

__all__ = ["LEAST_PER_CLASS", "Baseline", "Claim", "ProbeVerdict", "compare_baseline", "judge_probe"]

ProbeVerdict = Literal[
    "decodable beyond baselines", "decodable here only", "explained by words", "explained by length", "no claim"
]
LEAST_PER_CLASS = 8


@dataclass(frozen=True)
class Baseline:
    """A baseline's AUROC, and how far the probe is above it on the same rows."""

    auroc: Auroc
    advantage: float
    low: float
    high: float
    """Interval of the advantage, 95 % divided over the layers searched."""

    @property
    def beaten(self) -> bool:
        """Whether the probe is above it by more than the interval."""
        return self.low > 0

    @property
    def above_chance(self) -> bool:
        """Whether it tells the classes apart itself."""
        return self.auroc.low > 0.5

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            **self.auroc.to_dict(),
            "probe_advantage": self.advantage,
            "advantage_ci_low": self.low,
            "advantage_ci_high": self.high,
        }


def compare_baseline(
    probe: NDArray[np.float64],
    baseline: NDArray[np.float64],
    labels: NDArray[np.bool_],
    *,
    groups: NDArray[np.int64] | None,
    layers: int,
) -> Baseline:
    """Set a baseline's held-out scores beside the probe's.

    Args:
        probe: ``(row,)``.
        baseline: ``(row,)``.
        labels: ``(row,)``.
        groups: ``(row,)`` or None.
        layers: how many layers the probe was chosen from.
    """
    z = NormalDist().inv_cdf(1 - 0.025 / layers)
    difference, low, high = auroc_difference(probe, baseline, labels, groups=groups, z=z)
    return Baseline(measure_auroc(baseline, labels, groups=groups), difference, low, high)


@dataclass(frozen=True)
class Claim:
    """The verdict and why."""

    verdict: ProbeVerdict
    reason: str


def judge_probe(
    found: Auroc,
    *,
    null: NDArray[np.float64],
    baselines: Mapping[str, Baseline],
    per_class: int,
    wide: bool,
    ood: Auroc | None,
) -> Claim:
    """Apply the rule of this module.

    Args:
        found: the best layer's cross-validated AUROC.
        null: ``(shuffle,)``: the best AUROC over layers of each vector of shuffled labels.
        baselines: ``words``, ``single word`` and ``length``.
        per_class: rows (or groups) in the smaller class.
        wide: whether features outnumber the rows that a fold trains on.
        ood: AUROC on a set from elsewhere, if there is one.
    """
    if per_class < LEAST_PER_CLASS:
        return Claim(
            "no claim", f"{per_class} rows or groups in the smaller class; at least {LEAST_PER_CLASS} are needed"
        )
    limit = float(null.max() if wide else np.quantile(null, 0.95))
    if found.value <= limit or found.low <= 0.5:
        why = "features outnumber samples, and the largest" if wide else "the 95th percentile"
        return Claim("no claim", f"{found}; {why} of {len(null)} shuffled labelings reaches {limit:.3f}")
    near = {name: one for name, one in baselines.items() if not one.beaten}
    telling = {name: one for name, one in near.items() if one.above_chance}
    if telling:
        name = max(telling, key=lambda name: telling[name].auroc.value)
        verdict: ProbeVerdict = "explained by length" if name == "length" else "explained by words"
        return Claim(verdict, f"the {name} baseline alone reaches {telling[name].auroc}")
    if near:
        name = max(near, key=lambda name: near[name].auroc.value)
        return Claim("no claim", f"too few rows to tell the probe from the {name} baseline ({near[name].auroc})")
    if ood is not None and ood.low <= 0.5:
        return Claim("decodable here only", f"beyond the baselines, but {ood} on the set from elsewhere")
    return Claim("decodable beyond baselines", "above shuffled labels and every baseline, by more than the intervals")
