"""What a run has used of its budget, read off its events."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

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
    """None as soon as one call's price is unknown."""
    seconds: float = 0.0

    def plus(self, event: Event) -> Used:
        """The amounts after one more event; ``seconds`` is kept by ``used_by``."""
        if event.type == "model_call" and event.role == "investigator":
            usage = Usage.from_dict(event.payload["turn"]["usage"])
            cost = None if self.cost is None or usage.cost_usd is None else self.cost + usage.cost_usd
            tokens = self.tokens + usage.input_tokens + usage.output_tokens
            turn = int(event.payload["purpose"] == "investigate")
            return replace(self, turns=self.turns + turn, tokens=tokens, cost=cost)
        if event.type == "tool_call" and event.payload.get("on_target"):
            cost_of_call = event.payload.get("cost", {})
            spent = cost_of_call.get("prompt_tokens", 0) + cost_of_call.get("generated_tokens", 0)
            return replace(self, calls=self.calls + 1, target_tokens=self.target_tokens + spent)
        return self


def used_by(events: Iterable[Event], *, now: float | None = None) -> Used:
    """Everything used up to the last event, or to ``now`` (seconds since the epoch) for the clock.

    Time between an interruption and the resume that followed does not count, nor does that of checking claims.
    """
    used = Used()
    seconds, last = 0.0, None
    for event in events:
        used = used.plus(event)
        if last is not None and event.type not in ("run_resume", "replication"):
            seconds += max(0.0, event.ts - last)
        last = event.ts
    if now is not None and last is not None:
        seconds += max(0.0, now - last)
    return replace(used, seconds=seconds)


def exceeded_limit(budget: Budget, used: Used) -> str | None:
    """The first limit that is reached, by name, or None."""
    for name in Budget.names():
        limit, amount = getattr(budget, name), getattr(used, name)
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
    if budget.cost is not None and used.cost is not None:
        parts.append(f"${max(0.0, budget.cost - used.cost):.2f} of ${budget.cost:.2f}")
    return "Budget left: " + ", ".join(parts) + "." if parts else "Budget left: no limit."
