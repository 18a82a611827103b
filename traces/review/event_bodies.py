"""What an event shows when it is opened, one view for each type."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from marple.traces.event import Event
from marple.traces.review.ending_bodies import ENDINGS
from marple.traces.review.event_rows import event_row
from marple.traces.review.fields import items, mapping, number, of, rows, text
from marple.traces.review.opened import Opened
from marple.traces.review.tool_views import argument_rows, tool_blocks
from marple.traces.review.verdict import stated

__all__ = ["body"]

_PICTURES = ("image/png",)
_RAW = 60_000


def body(run: Opened, event: Event) -> dict[str, Any]:
    """The values of the event's template; ``view`` names the part that draws it."""
    try:
        view, values = _VIEWS.get(event.type, _other)(run, event)
    except Exception as error:
        # A payload in a form that this version does not know must not hide the rest of the run.
        view, values = _other(run, event)
        values["note"] = f"The payload is not in the form of a {event.type} ({type(error).__name__}); shown as it is."
    return {"view": view, **values, "cited_by": _citing(run, event)}


Seen = tuple[str, dict[str, Any]]


def _model_call(run: Opened, event: Event) -> Seen:
    turn = mapping(event.payload.get("turn"))
    usage = mapping(turn.get("usage"))
    calls = [
        (text(call.get("name")), argument_rows(call.get("arguments")), text(call.get("error")), text(call.get("raw")))
        for call in rows(turn.get("tool_calls"))
    ]
    counts = {
        "input": number(usage.get("gen_ai.usage.input_tokens")),
        "from cache": number(usage.get("gen_ai.usage.cache_read.input_tokens")),
        "output": number(usage.get("gen_ai.usage.output_tokens")),
        "reasoning": number(usage.get("gen_ai.usage.reasoning.output_tokens")),
    }
    return "model_call", {
        "text": text(turn.get("text")),
        "thinking": [one for one in items(turn.get("thinking")) if isinstance(one, str)],
        "calls": calls,
        "usage": {name: int(value) for name, value in counts.items() if value},
        "cost": number(usage.get("cost_usd")),
        "reported": usage.get("reported") is not False and bool(usage),
        "model": text(turn.get("response_model")) or text(turn.get("model")),
        "stop": " ".join(text(turn.get(key)) for key in ("stop", "stop_detail") if text(turn.get(key))),
        "fresh": _new_input(run, event),
    }


def _new_input(run: Opened, event: Event) -> list[tuple[str, str, str]]:
    """What the model had not read at its turn before: id, name and line of each event."""
    fresh: list[tuple[str, str, str]] = []
    at = next((n for n, one in enumerate(run.events) if one.id == event.id), 0)
    for one in reversed(run.events[:at]):
        if one.type == "model_call":
            break
        if one.type in ("tool_call", "check_in", "limit", "measurement", "forecast", "run_start", "approval"):
            row = event_row(one)
            fresh.insert(0, (row.id, row.name, row.line))
    return fresh[:60]


def _tool_call(run: Opened, event: Event) -> Seen:
    said = event.payload
    effect, controls = tool_blocks(run, event)
    pictures: list[tuple[str, str, str]] = []
    files: list[tuple[str, str, str]] = []
    for one in rows(said.get("artifacts")):
        ref = text(one.get("ref"))
        there = bool(ref) and run.blob(ref) is not None
        drawn = there and one.get("media_type") in _PICTURES
        (pictures if drawn else files).append(
            (text(one.get("name")), ref if there else "", text(one.get("media_type")))
        )
    missing = [
        name for name in ("data", "controls", "text") if f"{name}_ref" in said and run.blob(said[f"{name}_ref"]) is None
    ]
    cost = mapping(said.get("cost"))
    return "tool_call", {
        "tool": text(said.get("tool")),
        "status": text(said.get("status")),
        "arguments": argument_rows(said.get("arguments")),
        "effect": effect,
        "controls": controls,
        "pictures": pictures,
        "files": files,
        "missing": missing,
        "left_out": [text(one.get("name")) for one in rows(said.get("left_out"))],
        "text": text(said.get("text")),
        "whole": text(said.get("text_ref")),
        "characters": said.get("characters"),
        "untrusted": said.get("untrusted") is True,
        "on_target": said.get("on_target") is True,
        "seed": said.get("seed"),
        "tokens": int(sum(number(cost.get(key)) or 0 for key in ("prompt_tokens", "generated_tokens"))),
        "again": _made_again(run, event.id),
    }


def _made_again(run: Opened, call: str) -> dict[str, Any] | None:
    for event in run.of_type("replication"):
        if event.payload.get("call") == call:
            return {"id": event.id, **_effects(event.payload)}
    return None


def _effects(said: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "rows": [
            (_effect(mapping(row.get("effect"))), _arm(row.get("target")), _arm(row.get("control")))
            for row in rows(said.get("effects"))
        ],
        "reason": text(said.get("reason")) or text(said.get("control_reason")),
    }


def _effect(said: Mapping[str, Any]) -> str:
    if said.get("sort") in ("share", "number"):
        return stated(said)
    if said.get("sort") == "verdict":
        return f"the verdict is {said.get('verdict')}"
    return f"found again: {', '.join(str(one) for one in items(said.get('found'))[:8])}"


def _arm(measured: Any) -> tuple[str, bool] | None:
    if not isinstance(measured, Mapping):
        return None
    value = number(measured.get("value"))
    return (f"{value:.2f}" if value is not None else str(measured.get("value")), measured.get("appears") is True)


def _replication(run: Opened, event: Event) -> Seen:
    return "replication", {"call": text(event.payload.get("call")), **_effects(event.payload)}


def _hypothesis(run: Opened, event: Event) -> Seen:
    said = event.payload
    before = [
        (one.id, number(one.payload.get("credence")))
        for one in run.of_type("hypothesis")
        if one.payload.get("id") == said.get("id")
    ]
    return "hypothesis", {
        "name": text(said.get("id")),
        "statement": text(said.get("statement")),
        "action": text(said.get("action")),
        "credence": number(said.get("credence")),
        "evidence": [one for one in items(said.get("evidence")) if isinstance(one, str)],
        "history": before,
    }


def _prediction(run: Opened, event: Event) -> Seen:
    wanted = event.id if event.type == "prediction" else text(event.payload.get("prediction"))
    made = run.by_id.get(wanted)
    outcome = (
        event
        if event.type == "measurement"
        else next((one for one in run.of_type("measurement") if one.payload.get("prediction") == event.id), None)
    )
    said = made.payload if made else {}
    return "prediction", {
        "prediction": wanted,
        "statement": text(said.get("statement")),
        "probability": number(said.get("probability")),
        "word": text(said.get("word")),
        "at_least": number(said.get("at_least")),
        "condition": text(said.get("condition")),
        "outcome": {
            "happened": outcome.payload.get("happened") is True,
            "text": text(outcome.payload.get("text")),
        }
        if outcome
        else None,
        "outcome_id": outcome.id if outcome else "",
        "experiment": text(of(outcome.payload, "experiment")) if outcome else "",
    }


def _plan(run: Opened, event: Event) -> Seen:
    said = event.payload
    steps = [one for one in items(said.get("next_experiments")) if isinstance(one, str)]
    return "plan", {"north_star": text(said.get("north_star")), "proxy": text(said.get("proxy")), "steps": steps}


def _spoken(run: Opened, event: Event) -> Seen:
    said = event.payload
    text_of = next((text(said[key]) for key in ("brief", "text", "message", "reason") if text(said.get(key))), "")
    rest = {key: value for key, value in said.items() if key not in ("brief", "text", "message", "reason", "traceback")}
    return "spoken", {"text": text_of, "trace": text(said.get("traceback")), "rest": argument_rows(rest)}


def _other(run: Opened, event: Event) -> Seen:
    raw = json.dumps(event.payload, indent=1, ensure_ascii=False)
    return "other", {"raw": raw[:_RAW], "cut": max(0, len(raw) - _RAW), "note": ""}


def _citing(run: Opened, event: Event) -> Sequence[tuple[str, str, str]]:
    found = []
    for name, how in run.cited_by.get(event.id, ()):
        citing = run.by_id.get(name)
        found.append((name, how, event_row(citing).line if citing else ""))
    return found


_VIEWS: Mapping[str, Callable[[Opened, Event], Seen]] = {
    "model_call": _model_call,
    "tool_call": _tool_call,
    "replication": _replication,
    "hypothesis": _hypothesis,
    "prediction": _prediction,
    "measurement": _prediction,
    "plan": _plan,
    **ENDINGS,
    "run_start": _spoken,
    "check_in": _spoken,
    "limit": _spoken,
    "error": _spoken,
    "approval": _spoken,
}
