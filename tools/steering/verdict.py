"""When a steering effect counts as the direction's own.

Everything is compared over the prompts, in pairs: effect and controls share prompts, seeds, site and length. An *arm*
is one sign of the scale and one sign of the outcome's change. In an arm the effect is its largest change at a fluent
scale; a control's is its largest change in the same sense at any of its fluent scales of either sign, or 0, so that
choosing the best scale favours nobody. The verdict is

``causal``
    if in some arm (1) the effect exceeds every control by more than the 95 % interval of their paired difference; (2)
    it lies above the 99 % prediction interval for one more control, so outside their spread; (3) its own change's 95
    % interval leaves out 0; (4) there are at least two fluent scales, and from one to the next, up to the effect's,
    the outcome never steps back by more than the interval of the step: a dose-response;
``weak``
    if in some arm the effect's own interval leaves out 0 and it exceeds every control's change, but not all of the
    above;
``indistinguishable from control``
    otherwise, which includes that no scale left the replies fluent.

Measured on 480 directions without meaning in tiny models (160 each by words, by own words and by continuations, half of
them drawn like the random controls and half like the norm-matched): 2 were called causal (both by continuations) and 15
weak. Where effect and controls are drawn alike and the outcome has no noise, 2 % are causal and 11 % weak.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from marple.tools.steering.intervals import mean_interval, prediction_bound

__all__ = ["Label", "Verdict", "judge"]

Label = Literal["causal", "weak", "indistinguishable from control"]
_SPREAD_LEVEL = 0.99
_RANK: dict[Label, int] = {"causal": 2, "weak": 1, "indistinguishable from control": 0}


@dataclass(frozen=True)
class Verdict:
    """The judgement and the numbers of the arm it rests on."""

    label: Label
    reason: str
    scale: float | None = None
    """Where the effect is largest among the fluent scales."""
    change: float = 0.0
    """Outcome minus the unsteered outcome there."""
    low: float = 0.0
    high: float = 0.0
    """95 % interval of the change over prompts."""
    control: float = 0.0
    """The largest change of a control in the same sense."""
    control_bound: float | None = None
    """End of the prediction interval for one more control; None with fewer than two."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "verdict": self.label,
            "reason": self.reason,
            "scale": self.scale,
            "change": self.change,
            "ci_low": self.low,
            "ci_high": self.high,
            "largest_control_change": self.control,
            "control_prediction_bound": self.control_bound,
        }


@dataclass(frozen=True)
class _Arm:
    """Changes in the sense of the arm, the unsteered 0 left out."""

    sense: int
    scales: tuple[float, ...]
    """Fluent scales of the effect, the smallest dose first."""
    effect: NDArray[np.float64]
    """``(dose, prompt)``."""
    controls: NDArray[np.float64]
    """``(control, prompt)``: each at its best fluent scale."""
    shares: float


def judge(
    changes: NDArray[np.float64],
    *,
    scales: Sequence[float],
    fluent: NDArray[np.bool_],
    shares: bool,
    senses: Sequence[Literal[1, -1]] = (1, -1),
) -> Verdict:
    """Judge an effect by its dose-response beside its controls'.

    Args:
        changes: outcome minus unsteered outcome, shape ``(direction, scale, prompt)``; direction 0 is the effect, the
            others are its controls.
        scales: the doses, none of them 0.
        fluent: shape ``(direction, scale)``.
        shares: whether the outcome is a share between 0 and 1.
        senses: which changes count: a rise (1), a fall (-1).
    """
    arms = list(_arms(changes, np.asarray(scales), fluent, shares=shares, senses=senses))
    if not arms:
        return Verdict("indistinguishable from control", "no scale left the replies fluent, so there is no evidence")
    return max(map(_judge_arm, arms), key=lambda verdict: (_RANK[verdict.label], abs(verdict.change)))


def _arms(
    changes: NDArray[np.float64],
    scales: NDArray[np.float64],
    fluent: NDArray[np.bool_],
    *,
    shares: bool,
    senses: Sequence[int],
) -> Iterator[_Arm]:
    signs = [sign for sign in (1, -1) if (np.sign(scales) == sign).any()]
    for sign in signs:
        doses = [at for at in np.argsort(np.abs(scales), kind="stable") if scales[at] * sign > 0 and fluent[0, at]]
        for sense in senses if doses else ():
            best = [_best(sense * rows[good]) for rows, good in zip(changes[1:], fluent[1:], strict=True)]
            chosen = np.array(best).reshape(len(best), changes.shape[2])
            yield _Arm(sense, tuple(scales[doses].tolist()), sense * changes[0, doses], chosen, 1.0 if shares else 0.0)


def _best(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """The row with the largest mean, or no change at all."""
    still = np.zeros((1, rows.shape[1]))
    candidates = np.concatenate([still, rows])
    found: NDArray[np.float64] = candidates[int(candidates.mean(axis=1).argmax())]
    return found


def _judge_arm(arm: _Arm) -> Verdict:
    at = int(arm.effect.mean(axis=1).argmax())
    effect = arm.effect[at]
    change, low, high = mean_interval(effect, shares=arm.shares)
    control_means = arm.controls.mean(axis=1)
    largest = float(control_means.max(initial=0.0))
    bound = prediction_bound(control_means, level=_SPREAD_LEVEL)
    verdict = Verdict(
        "indistinguishable from control",
        "",
        scale=arm.scales[at],
        change=arm.sense * change,
        low=min(arm.sense * low, arm.sense * high),
        high=max(arm.sense * low, arm.sense * high),
        control=arm.sense * largest,
        control_bound=arm.sense * bound if np.isfinite(bound) else None,
    )
    if low <= 0:
        return replace(verdict, reason="no fluent scale changes the outcome by more than its interval")
    if change <= largest:
        return replace(verdict, reason="a control changes the outcome at least as much")
    doubt = _doubt(arm, at, change, bound)
    if doubt:
        return replace(verdict, label="weak", reason=doubt)
    reason = "beyond every control by more than the interval, outside their spread, and growing with the dose"
    return replace(verdict, label="causal", reason=reason)


def _doubt(arm: _Arm, at: int, change: float, bound: float) -> str:
    """What keeps an effect larger than every control from being causal, or ''."""
    if len(arm.controls) < 3:
        return f"only {len(arm.controls)} controls were run; at least 3 are needed"
    beyond = [mean_interval(arm.effect[at] - row, shares=arm.shares)[1] > 0 for row in arm.controls]
    if not all(beyond):
        return f"larger than every control, but within the interval of {beyond.count(False)} of {len(beyond)}"
    if change <= bound:
        return "larger than every control, but within the spread of further controls"
    if len(arm.scales) < 2:
        return "only one fluent scale of this sign, which is no dose-response"
    steps = zip(arm.effect[:at], arm.effect[1 : at + 1], strict=True)
    if any(mean_interval(later - earlier, shares=arm.shares)[2] < 0 for earlier, later in steps):
        return "larger than every control, but the outcome does not grow with the dose"
    return ""
