"""One line on an event, for a terminal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from marple.tools.visible import visible
from marple.traces import EVENT_TYPES, Event

__all__ = ["WIDTH", "event_line"]

WIDTH = 110
"""Characters of a text that are shown."""


def event_line(event: Event) -> str:
    """One line on an event for a terminal, or '' for an event that says nothing by itself.

    What is not as this Marple writes it, an unknown type included, is named as such.
    """
    try:
        line = _line(event)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        line = f"{event.type[:10]:10} not as this Marple writes it ({type(error).__name__}: {str(error)[:40]})"
    return visible(line.split("\n")[0])


def _line(event: Event) -> str:
    if event.type in _TEMPLATES:
        return _TEMPLATES[event.type].format_map(event.payload)
    if event.type in _DESCRIBED:
        return _DESCRIBED[event.type](event)
    known = event.type in EVENT_TYPES
    return "" if known else f"?          an event of type {event.type!r}, which this Marple does not know"


def _thought_line(event: Event) -> str:
    text = event.payload["turn"]["text"]
    return f"think      {_first_line(text)}" if text else ""


def _call_line(event: Event) -> str:
    payload = event.payload
    if not payload.get("on_target"):
        return "" if payload["status"] == "ok" else f"{payload['tool']:10} refused: {_first_line(payload['text'])}"
    return f"{payload['tool']:10} {event.seconds or 0:.1f} s  {_first_line(payload['text'])}"


def _answer_line(event: Event) -> str:
    return f"answer     {_first_line(event.payload['answer'].get('summary', ''))}"


def _forecast_line(event: Event) -> str:
    return "forecasts" if "probabilities" in event.payload else ""


def _replication_line(event: Event) -> str:
    effects = event.payload.get("effects", ())
    again = sum(row["target"]["appears"] for row in effects)
    said = f"{again} of {len(effects)} effects came again" if effects else event.payload.get("reason", "")
    return f"replicate  {event.seconds or 0:.1f} s  {event.payload['call']}: {_first_line(said)}"


def _ensemble_line(event: Event) -> str:
    members = event.payload["members"]
    answered = sum(member["answer"] is not None for member in members)
    return f"members    {answered} of {len(members)} answered: {', '.join(member['run_id'] for member in members)}"


def _control_line(event: Event) -> str:
    by = f"asked for by {_first_line(event.payload['by'])}" if event.payload.get("by") else ""
    dropped = event.payload.get("under_way", ())
    rest = f"; {', '.join(dropped)} under way, dropped" if dropped else ""
    return f"{event.payload['did']:10} {by}{rest}".rstrip()


def _first_line(text: Any) -> str:
    return str(text).strip().split("\n")[0][:WIDTH]


_TEMPLATES = {
    "run_start": "start",
    "run_resume": "resumed after {after}",
    "plan": "plan       {proxy}",
    "hypothesis": "hypothesis {id} {credence:.2f}  {statement}",
    "prediction": "predict    {probability:.2f}  {statement}",
    "measurement": "outcome    {text}",
    "note": "note       {text}",
    "check_in": "check-in",
    "compaction": "compact    results up to {upto} are told in short ({estimate:,} of {window:,} tokens)",
    "limit": "limit      {limit}",
    "error": "error      {message}",
    "run_end": "end        {status}",
}

_DESCRIBED: dict[str, Callable[[Event], str]] = {
    "model_call": _thought_line,
    "tool_call": _call_line,
    "answer": _answer_line,
    "forecast": _forecast_line,
    "replication": _replication_line,
    "control": _control_line,
    "ensemble": _ensemble_line,
}
