"""How much of a run's budget was used over its turns, and the scale that it shares with the picture above it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from marple.traces.event import Event
from marple.traces.review.fields import mapping, number, of
from marple.traces.review.opened import Opened

__all__ = ["BUDGET", "HEIGHT", "LANE", "TOP", "Scale", "budgets"]

WIDTH, LEFT, RIGHT = 960.0, 44.0, 92.0
TOP, HEIGHT = 14.0, 220.0
LANE = 46.0
"""Height of the marks of experiments and surprises, below the credences."""
BUDGET = 64.0
_BUDGETS = ("turns", "calls", "target_tokens", "tokens", "cost", "seconds")
_NAMES = {"calls": "experiments", "target_tokens": "target tokens", "cost": "money", "seconds": "time"}


class Scale:
    """From turns and shares to places."""

    def __init__(self, turns: float) -> None:
        self.turns = turns
        self.wide = WIDTH - LEFT - RIGHT

    def x(self, turn: float) -> float:
        """Place of a turn, in pixels from the left."""
        return round(LEFT + self.wide * min(max(turn, 0.0), self.turns) / self.turns, 1)

    def y(self, share: float) -> float:
        """Place of a credence, in pixels from the top."""
        return round(TOP + HEIGHT * (1 - min(max(share, 0.0), 1.0)), 1)

    def steps(self, points: Sequence[tuple[float, float]]) -> str:
        """A path that holds each value until the next."""
        path = "".join(
            f"M{self.x(t)} {self.y(v)}" if not n else f"H{self.x(t)}V{self.y(v)}" for n, (t, v) in enumerate(points)
        )
        return f"{path}H{self.x(self.turns)}"

    def ticks(self) -> Iterator[tuple[float, str]]:
        """Places and names of some turns."""
        step = next((s for s in (1, 2, 5, 10, 20, 50, 100, 200, 500) if self.turns / s <= 14), 1000)
        for turn in range(0, int(self.turns) + 1, step):
            yield self.x(turn), str(turn)


def budgets(run: Opened, placed: Sequence[tuple[Event, float]], scale: Scale) -> list[tuple[str, str, float, int]]:
    """The four limits that came nearest: name, path, share used in the end, and colour."""
    limits = {name: number(mapping(run.spec.get("budget")).get(name)) for name in _BUDGETS}
    used = dict.fromkeys(_BUDGETS, 0.0)
    seen: dict[str, list[tuple[float, float]]] = {name: [(0.0, 0.0)] for name, limit in limits.items() if limit}
    last: float | None = None
    for event, turn in placed:
        _spend(used, event, last)
        last = event.ts
        for name, points in seen.items():
            share = used[name] / (limits[name] or 1.0)
            if share > points[-1][1] + 0.002 and points[-1][1] < 1.0:
                points.append((turn, share))
    bottom = TOP + HEIGHT + LANE + 26 + BUDGET
    shares = {name: used[name] / (limits[name] or 1.0) for name in seen}
    drawn = sorted(seen, key=lambda name: -shares[name])[:4]
    return [
        (_NAMES.get(name, name), _area(seen[name], scale, bottom), shares[name], at) for at, name in enumerate(drawn)
    ]


def _spend(used: dict[str, float], event: Event, last: float | None) -> None:
    if event.type == "model_call" and event.role == "investigator":
        usage = mapping(of(event.payload, "turn", "usage"))
        used["turns"] += event.payload.get("purpose", "investigate") == "investigate"
        used["cost"] += number(usage.get("cost_usd")) or 0.0
        for key in ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens"):
            used["tokens"] += number(usage.get(key)) or 0.0
    if event.type == "tool_call" and event.payload.get("on_target"):
        used["calls"] += 1
        for key in ("prompt_tokens", "generated_tokens"):
            used["target_tokens"] += number(of(event.payload, "cost", key)) or 0.0
    idle = event.type in ("run_resume", "replication", "ensemble") or event.payload.get("idle") is True
    if last is not None and not idle:
        used["seconds"] += min(max(0.0, event.ts - last), 1e7)


def _area(points: Sequence[tuple[float, float]], scale: Scale, bottom: float) -> str:
    def y(share: float) -> float:
        return round(bottom - BUDGET * min(share, 1.0), 1)

    path = "".join(f"{'M' if not n else 'L'}{scale.x(t)} {y(v)}" for n, (t, v) in enumerate(points))
    return f"{path}H{scale.x(scale.turns)}"
