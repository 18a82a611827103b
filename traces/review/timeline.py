"""The picture of an investigation: credences over turns, experiments and surprises, and the budget below."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from marple.traces.event import Event
from marple.traces.review.budget_use import BUDGET, HEIGHT, LANE, TOP, Scale, budgets
from marple.traces.review.fields import items, number, of, text, whole
from marple.traces.review.opened import Opened

__all__ = ["Mark", "Timeline", "timeline"]

SURPRISES, EXPERIMENTS = TOP + HEIGHT + 14.0, TOP + HEIGHT + 32.0
COLOURS = 8
_MOST_MARKS = 400


@dataclass(frozen=True)
class Mark:
    """Something at a place of the picture that links to an event."""

    x: float
    y: float
    event: str
    title: str
    size: float = 4.0
    tone: str = ""


@dataclass
class Line:
    """One hypothesis."""

    id: str
    statement: str
    colour: int
    points: list[tuple[float, float, str]] = field(default_factory=list)
    """Turn, credence and event of every statement about it."""
    rejected: bool = False

    @property
    def credence(self) -> float:
        """The last one."""
        return self.points[-1][1]


@dataclass(frozen=True)
class Timeline:
    """All that the template draws."""

    lines: Sequence[Line]
    paths: Mapping[str, str]
    labels: Sequence[tuple[str, float, int]]
    """Text at the end of a line, its height and its colour."""
    dots: Sequence[tuple[Mark, int]]
    experiments: Sequence[Mark]
    surprises: Sequence[Mark]
    notes: Sequence[Mark]
    """Check-ins, limits, errors and the answer: vertical lines."""
    ticks: Sequence[tuple[float, str]]
    budgets: Sequence[tuple[str, str, float, int]]
    """Name, path, share used in the end, and colour."""
    turns: int
    left_out: int
    height: float


def timeline(run: Opened) -> Timeline | None:
    """The picture of ``run``; None where nothing has happened that it could show."""
    placed = list(_placed(run.events))
    last = max((turn for _, turn in placed), default=0.0)
    if not placed or last <= 0:
        return None
    scale = Scale(max(1.0, last))
    lines = _lines(placed)
    paths = {line.id: scale.steps([(turn, credence) for turn, credence, _ in line.points]) for line in lines}
    dots = [
        (Mark(scale.x(turn), scale.y(credence), event, f"{line.id} {credence:.2f}: {line.statement}"), line.colour)
        for line in lines
        for turn, credence, event in line.points
    ]
    experiments = list(_experiments(placed, scale))
    used = budgets(run, placed, scale)
    return Timeline(
        lines=lines,
        paths=paths,
        labels=_spread([(f"{line.id} {line.credence:.2f}", scale.y(line.credence), line.colour) for line in lines]),
        dots=dots[:_MOST_MARKS],
        experiments=experiments[:_MOST_MARKS],
        surprises=list(_surprises(placed, scale))[:_MOST_MARKS],
        notes=list(_notes(placed, scale))[:_MOST_MARKS],
        ticks=list(scale.ticks()),
        budgets=used,
        turns=int(last),
        left_out=max(0, len(experiments) - _MOST_MARKS),
        height=TOP + HEIGHT + LANE + 26 + (BUDGET + 18 if used else 0),
    )


def _placed(events: Sequence[Event]) -> Iterator[tuple[Event, float]]:
    """Each event with where in the turns it stands: turn 3 runs from 2 to 3."""
    turn, taken, since, calls = 0, 0, 0, 1
    for event in events:
        if event.type == "model_call" and event.payload.get("purpose", "investigate") == "investigate":
            taken += 1
            turn = max(1, min(whole(event.payload.get("turn_number"), taken), taken))
            since, calls = 0, max(1, len(items(of(event.payload, "turn", "tool_calls"))))
        elif event.type == "tool_call":
            since += 1
        yield event, max(0.0, turn - 1 + min(1.0, (since + 0.5) / (calls + 1))) if turn else 0.0


def _lines(placed: Sequence[tuple[Event, float]]) -> list[Line]:
    lines: dict[str, Line] = {}
    for event, turn in placed:
        credence = number(event.payload.get("credence"))
        if event.type != "hypothesis" or credence is None:
            continue
        name = text(event.payload.get("id")) or "H?"
        line = lines.setdefault(name, Line(name, "", len(lines) % COLOURS))
        line.statement = text(event.payload.get("statement")) or line.statement
        line.rejected = event.payload.get("action") == "reject"
        line.points.append((turn, min(max(credence, 0.0), 1.0), event.id))
    return list(lines.values())


def _experiments(placed: Sequence[tuple[Event, float]], scale: Scale) -> Iterator[Mark]:
    for event, turn in placed:
        if event.type == "tool_call" and event.payload.get("on_target"):
            ok = event.payload.get("status") == "ok"
            said = text(event.payload.get("text")).split("\n")[0][:140]
            yield Mark(
                scale.x(turn),
                EXPERIMENTS,
                event.id,
                f"{event.id} {event.payload.get('tool')}: {said}",
                4.0,
                "" if ok else "bad",
            )


def _surprises(placed: Sequence[tuple[Event, float]], scale: Scale) -> Iterator[Mark]:
    for event, turn in placed:
        bits = number(event.payload.get("surprise_bits"))
        if event.type == "measurement" and bits is not None:
            came = event.payload.get("happened") is True
            title = f"{event.id} {'came true' if came else 'did not come true'}, surprise {bits:.1f} bits"
            tone = "bad" if bits >= 1 else "good"
            yield Mark(scale.x(turn), SURPRISES, event.id, title, 5.0 + min(bits, 6.6), tone)


def _notes(placed: Sequence[tuple[Event, float]], scale: Scale) -> Iterator[Mark]:
    names = {
        "check_in": "check-in",
        "limit": "limit",
        "error": "error",
        "answer": "answer",
        "run_resume": "resumed",
        "control": "control",
    }
    for event, turn in placed:
        if event.type in names:
            said = text(event.payload.get("message")) or text(event.payload.get("limit"))
            title = f"{event.id} {names[event.type]} {said}"[:160]
            yield Mark(scale.x(turn), TOP, event.id, title, tone="bad" if event.type in ("error", "limit") else "")


def _spread(labels: list[tuple[str, float, int]]) -> list[tuple[str, float, int]]:
    """The labels moved apart so that none covers another, within the plot."""
    placed: list[tuple[str, float, int]] = []
    for name, y, colour in sorted(labels, key=lambda one: one[1]):
        above: Any = placed[-1][1] + 14 if placed else TOP
        placed.append((name, max(y, above), colour))
    over = placed[-1][1] - (TOP + HEIGHT) if placed else 0.0
    for at in range(len(placed) - 1, -1, -1):
        if over <= 0:
            break
        limit = placed[at + 1][1] - 14 if at + 1 < len(placed) else TOP + HEIGHT
        name, y, colour = placed[at]
        placed[at] = (name, min(y, limit), colour)
    return placed
