"""What a run cost, by role and by tool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from marple.traces.event import Event
from marple.traces.review.fields import mapping, number, of
from marple.traces.review.opened import Opened

__all__ = ["Spent", "spent_by_role", "spent_by_tool"]


@dataclass(frozen=True)
class Spent:
    """What one role or tool used."""

    name: str
    calls: int = 0
    tokens_in: int = 0
    cached: int = 0
    tokens_out: int = 0
    cost: float | None = 0.0
    """US dollars; None as soon as one price is unknown."""
    seconds: float = 0.0
    failed: int = 0


def spent_by_role(run: Opened) -> list[Spent]:
    """Model calls by role, and what went through the target."""
    found: dict[str, Spent] = {}
    for event in run.events:
        if event.type == "model_call":
            name = event.role
            found[name] = _with_turn(found.get(name, Spent(name)), event)
        elif event.type == "tool_call" and event.payload.get("on_target"):
            found["target"] = _with_call(found.get("target", Spent("target", cost=None)), event)
    return list(found.values())


def spent_by_tool(run: Opened) -> Sequence[Spent]:
    """The calls on the target by tool, those that took longest first."""
    found: dict[str, Spent] = {}
    for event in run.of_type("tool_call"):
        if event.payload.get("on_target"):
            name = str(event.payload.get("tool"))
            found[name] = _with_call(found.get(name, Spent(name, cost=None)), event)
    return sorted(found.values(), key=lambda one: -one.seconds)


def _with_turn(so_far: Spent, event: Event) -> Spent:
    usage = mapping(of(event.payload, "turn", "usage"))

    def count(name: str) -> int:
        return int(number(usage.get(f"gen_ai.usage.{name}")) or 0)

    cost = number(usage.get("cost_usd"))
    return replace(
        so_far,
        calls=so_far.calls + 1,
        tokens_in=so_far.tokens_in + count("input_tokens"),
        cached=so_far.cached + count("cache_read.input_tokens"),
        tokens_out=so_far.tokens_out + count("output_tokens"),
        cost=None if cost is None or so_far.cost is None else so_far.cost + cost,
        seconds=so_far.seconds + (number(event.seconds) or 0.0),
    )


def _with_call(so_far: Spent, event: Event) -> Spent:
    used = mapping(event.payload.get("cost"))
    return replace(
        so_far,
        calls=so_far.calls + 1,
        tokens_in=so_far.tokens_in + int(number(used.get("prompt_tokens")) or 0),
        tokens_out=so_far.tokens_out + int(number(used.get("generated_tokens")) or 0),
        seconds=so_far.seconds + (number(event.seconds) or 0.0),
        failed=so_far.failed + (event.payload.get("status") != "ok"),
    )
