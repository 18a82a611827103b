"""What an evaluation that has not been played will take, as far as that can be said beforehand."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marple.agent.evaluation.sample_log import SampleLog
from marple.agent.evaluation.samples import Sample, SampleEnd
from marple.agent.models import load_prices

__all__ = ["ArmEstimate", "estimate"]


@dataclass(frozen=True)
class ArmEstimate:
    """One arm's samples, and what those that are left will use."""

    arm: str
    samples: int
    finished: int
    interrupted: int
    """Begun, without a result; gone on with next time."""
    errors: int
    """Finished without a score, for whatever reason."""
    left: int
    """What this command would play."""
    basis: str
    """``measured`` on scored samples of this arm, ``at most``, from the limits of its runs, or ``unknown``."""
    tokens: float | None
    """Of the investigator, for all that is left."""
    cost: float | None
    """US dollars; None is unknown."""
    target_tokens: float | None
    seconds: float | None
    """Of playing, summed over the runs, which overlap."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return dict(vars(self))


def estimate(samples: Sequence[Sample], left: Sequence[Sample], log: SampleLog) -> list[ArmEstimate]:
    """An estimate for each arm.

    Args:
        samples: the grid, or what was chosen of it.
        left: those of them that would be played.
        log: what is there.
    """
    arms = list(dict.fromkeys(sample.arm.name for sample in samples))
    return [
        _of_arm(
            arm,
            [sample for sample in samples if sample.arm.name == arm],
            [sample for sample in left if sample.arm.name == arm],
            log,
        )
        for arm in arms
    ]


def _of_arm(arm: str, samples: Sequence[Sample], left: Sequence[Sample], log: SampleLog) -> ArmEstimate:
    states = [log.states[sample.key] for sample in samples if sample.key in log.states]
    ends = [state.end for state in states if state.end is not None and state.end.finished]
    counts: dict[str, Any] = {
        "samples": len(samples),
        "finished": len(ends),
        "interrupted": len(states) - len(ends),
        "errors": sum(not end.scored for end in ends),
        "left": len(left),
    }
    # What ended in an error used less than a sample takes.
    whole = [end for end in ends if end.scored]
    return ArmEstimate(arm, **counts, **(_measured(whole, len(left)) if whole else _at_most(left)))


def _measured(ends: Sequence[SampleEnd], left: int) -> dict[str, Any]:
    used = [_usage(end.usage) for end in ends]

    def total(name: str) -> float | None:
        values = [one[name] for one in used]
        known = [float(value) for value in values if value is not None]
        return statistics.fmean(known) * left if len(known) == len(values) else None

    return {"basis": "measured", **{name: total(name) for name in ("tokens", "cost", "target_tokens", "seconds")}}


def _usage(usage: Mapping[str, Any]) -> dict[str, float | None]:
    spoken = usage.get("investigator") or {}
    return {
        "tokens": spoken.get("gen_ai.usage.input_tokens", 0) + spoken.get("gen_ai.usage.output_tokens", 0),
        "cost": spoken.get("cost_usd"),
        "target_tokens": usage.get("target_tokens"),
        "seconds": usage.get("seconds"),
    }


def _at_most(left: Sequence[Sample]) -> dict[str, Any]:
    """From the limits of the runs; a limit that a run does not have makes it unknown."""

    def total(name: str) -> float | None:
        limits = [sample.budget[name] for sample in left]
        return None if None in limits else float(sum(limits))

    speaks = any(sample.arm.needs_model for sample in left)
    tokens = total("tokens") if speaks else 0.0
    cost = 0.0
    prices = load_prices(None) if speaks else {}
    for sample in left if speaks else ():
        # Tokens of both sorts share one limit, so the dearer sort bounds them.
        price = prices.get(sample.arm.model or "")
        limit = sample.budget["cost"]
        bound = None
        if price is not None and sample.budget["tokens"] is not None:
            bound = sample.budget["tokens"] * max(price.input, price.output) / 1_000_000
        known = [one for one in (limit, bound) if one is not None]
        if not known:
            return _bounds(tokens, None, total("target_tokens"), total("seconds"))
        cost += min(known)
    return _bounds(tokens, cost, total("target_tokens"), total("seconds"))


def _bounds(
    tokens: float | None, cost: float | None, target_tokens: float | None, seconds: float | None
) -> dict[str, Any]:
    values = {"tokens": tokens, "cost": cost, "target_tokens": target_tokens, "seconds": seconds}
    return {"basis": "unknown" if all(value is None for value in values.values()) else "at most", **values}
