"""What a run has used of its budget, read off its events."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from marple.agent.models import Usage
from marple.tasks.budget import Budget
from marple.traces import Event

__all__ = ["Used", "exceeded_limit", "remaining_text", "used_by"]


@dataclass(frozen=True)
class Used:
    """Amounts in the units of ``Budget``."""

    turns: int = 0
    calls: int = 0
    tokens: int = 0
    target_tokens: int = 0
    cost: float | None = 0.0
    """US dollars of the investigator; None as soon as one call's price is unknown."""
    target_cost: float | None = 0.0
    """US dollars of a target that is an endpoint; None as soon as one call's price is unknown."""
    seconds: float = 0.0

    def plus(self, event: Event) -> Used:
        """The amounts after one more event; ``seconds`` is kept by ``used_by``."""
        if event.type == "model_call" and event.role == "investigator":
            usage = Usage.from_dict(event.payload["turn"]["usage"])
            cost = None if self.cost is None or usage.cost_usd is None else self.cost + usage.cost_usd
            tokens = self.tokens + usage.input_tokens + usage.output_tokens
            turn = int(event.payload["purpose"] == "investigate")
            return replace(self, turns=self.turns + turn, tokens=tokens, cost=cost)
        if event.type == "model_call" and event.role == "auxiliary":
            paid = Usage.from_dict(event.payload["turn"]["usage"]).cost_usd
            return replace(self, cost=None if self.cost is None or paid is None else self.cost + paid)
        if event.type == "tool_call" and event.payload.get("on_target"):
            cost_of_call = event.payload.get("cost", {})
            spent = cost_of_call.get("prompt_tokens", 0) + cost_of_call.get("generated_tokens", 0)
            paid = _dollars(cost_of_call)
            target_cost = None if self.target_cost is None or paid is None else self.target_cost + paid
            tokens = self.target_tokens + spent
            return replace(self, calls=self.calls + 1, target_tokens=tokens, target_cost=target_cost)
        return self

    def spent(self, name: str) -> float | None:
        """The amount that a limit of ``Budget`` is about; for ``cost`` all that is known to have been paid."""
        if name == "cost":
            return None if self.cost is None else self.cost + (self.target_cost or 0.0)
        amount: float | None = getattr(self, name)
        return amount


def _dollars(cost: Mapping[str, Any]) -> float | None:
    """What a call of a tool cost: nothing on a worker of one's own; None where an endpoint's price is unknown."""
    if "usd" in cost:
        return cost["usd"] if cost["usd"] is None else float(cost["usd"])
    # Only a call that failed on an endpoint has tokens and no seconds; what they cost is not known.
    return None if "seconds" not in cost and any(cost.values()) else 0.0


def used_by(events: Iterable[Event], *, now: float | None = None) -> Used:
    """Everything used up to the last event, or to ``now`` (seconds since the epoch) for the clock.

    Time between an interruption and the resume that followed does not count, nor does that of a pause, of checking
    claims, or of an ensemble's members.
    """
    used = Used()
    seconds, last = 0.0, None
    for event in events:
        used = used.plus(event)
        if last is not None and not _nobody_played(event):
            seconds += max(0.0, event.ts - last.ts)
        last = event
    if now is not None and last is not None and not (last.type == "control" and last.payload.get("did") == "pause"):
        seconds += max(0.0, now - last.ts)
    return replace(used, seconds=seconds)


def _nobody_played(since: Event) -> bool:
    """Whether the time up to an event is not the run's."""
    return since.type in ("run_resume", "replication", "ensemble") or (
        since.type == "control" and bool(since.payload.get("idle"))
    )


def exceeded_limit(budget: Budget, used: Used) -> str | None:
    """The first limit that is reached, by name, or None."""
    for name in Budget.names():
        limit, amount = getattr(budget, name), used.spent(name)
        if limit is not None and amount is not None and amount >= limit:
            return name
    return None


def remaining_text(budget: Budget, used: Used) -> str:
    """One line on what is left, for the investigator, without the clock (which would differ at every reading)."""
    parts = []
    for name, label in (
        ("turns", "turns"),
        ("calls", "experiments"),
        ("tokens", "of your tokens"),
        ("target_tokens", "target tokens"),
    ):
        limit = getattr(budget, name)
        if limit is not None:
            parts.append(f"{max(0, limit - getattr(used, name)):,} of {limit:,} {label}")
    paid = used.spent("cost")
    if budget.cost is not None and paid is not None:
        parts.append(f"${max(0.0, budget.cost - paid):.2f} of ${budget.cost:.2f}")
    return "Budget left: " + ", ".join(parts) + "." if parts else "Budget left: no limit."
