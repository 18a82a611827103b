"""A run as steps that any format can hold: what was asked, said, called and answered, and what was noted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from marple.errors import CorruptTraceError
from marple.traces.event import Event
from marple.traces.run_folder import RunFolder

__all__ = ["Call", "Image", "Step", "image_of", "steps_of", "whole_text"]

Kind = Literal["brief", "turn", "result", "note"]

_NOTES = ("measurement", "check_in", "limit", "forecast", "error", "approval", "replication", "trial", "run_resume")
"""Events that become a note: what the harness said or did beside the calls."""


@dataclass(frozen=True)
class Call:
    """A call that the investigator asked for in a turn."""

    id: str
    tool: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Image:
    """A plot of a result."""

    name: str
    media_type: str
    ref: str
    """Of its blob."""


@dataclass(frozen=True)
class Step:
    """One thing a reader is told of."""

    kind: Kind
    event: Event
    """What it was read from."""
    text: str = ""
    thinking: str = ""
    """What the model thought aloud; for a turn."""
    calls: Sequence[Call] = ()
    """For a turn."""
    call_id: str = ""
    """The call a result belongs to."""
    tool: str = ""
    failed: bool = False
    """Whether the tool refused or failed; for a result."""
    untrusted: bool = False
    """Whether the text comes from the target or a worker."""
    images: Sequence[Image] = ()


def steps_of(run: RunFolder) -> list[Step]:
    """The steps of a run in the order of its events; those that say nothing to a reader are left out.

    Raises:
        CorruptTraceError: the log cannot be read.
    """
    return [step for event in run.events() for step in _steps(run, event)]


def whole_text(run: RunFolder, payload: Mapping[str, Any]) -> str:
    """The text of a result, the part that was too long for its event included; a missing blob is told of in it."""
    text = str(payload.get("text", ""))
    if "text_ref" not in payload:
        return text
    try:
        return run.get_blob(str(payload["text_ref"])).decode(errors="replace")
    except CorruptTraceError as error:
        return f"{text}\n[the rest is missing: {error}]"


def image_of(run: RunFolder, image: Image) -> bytes | None:
    """The bytes of a plot, None where its blob is missing."""
    try:
        return run.get_blob(image.ref)
    except CorruptTraceError:
        return None


def _steps(run: RunFolder, event: Event) -> Iterator[Step]:
    payload = event.payload
    if event.type == "run_start":
        yield Step("brief", event, str(payload.get("brief", "")))
    elif event.type == "model_call":
        yield _turn(event)
    elif event.type == "tool_call":
        yield _result(run, event)
    elif event.type in _NOTES and (text := _note(event)):
        yield Step("note", event, text, untrusted=event.type in ("replication", "trial"))


def _turn(event: Event) -> Step:
    turn = event.payload.get("turn", {})
    thinking = [part.get("text", "") if isinstance(part, dict) else str(part) for part in turn.get("thinking", ())]
    calls = [
        Call(str(call.get("id", "")), str(call.get("name", "")), call.get("arguments") or {})
        for call in turn.get("tool_calls", ())
    ]
    return Step("turn", event, str(turn.get("text", "")), thinking="\n\n".join(filter(None, thinking)), calls=calls)


def _result(run: RunFolder, event: Event) -> Step:
    payload = event.payload
    images = [
        Image(str(one.get("name", "plot")), str(one["media_type"]), str(one["ref"]))
        for one in payload.get("artifacts", ())
        if str(one.get("media_type", "")).startswith("image/") and "ref" in one
    ]
    return Step(
        "result",
        event,
        whole_text(run, payload),
        call_id=str(payload.get("call_id", "")),
        tool=str(payload.get("tool", "")),
        failed=payload.get("status") != "ok",
        untrusted=bool(payload.get("on_target")),
        images=images,
    )


def _note(event: Event) -> str:
    payload = event.payload
    if event.type == "forecast" and "items" in payload:
        return f"{payload.get('text', '')}\n{_json(payload['items'])}"
    if event.type == "forecast":
        return f"probabilities: {_json(payload.get('probabilities', []))}"
    if event.type in ("replication", "trial"):
        return _json(payload)
    if event.type == "run_resume":
        return f"The run was resumed after {payload.get('after')}."
    return str(payload.get("text") or payload.get("message") or _json(payload))


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
