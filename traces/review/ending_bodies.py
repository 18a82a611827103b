"""What the events at the end of a run show when they are opened: members, answer, forecasts, trial and scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from marple.traces.event import Event
from marple.traces.review.ensemble import ensemble_of
from marple.traces.review.fields import items, mapping, number, rows, text
from marple.traces.review.opened import Opened
from marple.traces.review.tool_views import argument_rows
from marple.traces.review.trials import measured_blocks

__all__ = ["ENDINGS"]

Seen = tuple[str, dict[str, Any]]


def _forecast(run: Opened, event: Event) -> Seen:
    said = event.payload
    asked = next(
        (
            rows(one.payload.get("items"))
            for one in run.of_type("forecast")
            if "items" in one.payload and one.payload.get("round", "replies") == said.get("round", "replies")
        ),
        [],
    )
    given = [number(one) for one in items(said.get("probabilities"))]
    shown = [
        (
            text(one.get("id")),
            text(one.get("prompt")),
            text(one.get("reply_a")),
            text(one.get("reply_b")),
            given[at] if at < len(given) else None,
        )
        for at, one in enumerate(asked[:200])
    ]
    return "forecast", {"text": text(said.get("text")), "items": shown, "given": bool(given)}


def _trial(run: Opened, event: Event) -> Seen:
    blocks = measured_blocks(mapping(event.payload.get("measured")))
    return "blocks", {"blocks": blocks, **(_rest(event, "measured") if blocks else _rest(event))}


def _answer(run: Opened, event: Event) -> Seen:
    said = mapping(event.payload.get("answer"))
    claims = [
        (
            text(one.get("statement")),
            number(one.get("credence")),
            [name for name in items(one.get("evidence")) if isinstance(name, str)],
        )
        for one in rows(said.get("claims"))
    ]
    rest = {key: value for key, value in said.items() if key not in ("claims", "summary")}
    return "answer", {"text": text(said.get("summary")), "claims": claims, "rest": argument_rows(rest)}


def _ensemble(run: Opened, event: Event) -> Seen:
    return "ensemble", {"ensemble": ensemble_of(run)}


def _figures(run: Opened, event: Event) -> Seen:
    return "blocks", {"blocks": [], **_rest(event)}


def _rest(event: Event, *shown: str) -> dict[str, Any]:
    return {"rest": argument_rows({key: value for key, value in event.payload.items() if key not in shown})}


ENDINGS: Mapping[str, Callable[[Opened, Event], Seen]] = {
    "ensemble": _ensemble,
    "answer": _answer,
    "forecast": _forecast,
    "trial": _trial,
    "score": _figures,
    "run_end": _figures,
}
