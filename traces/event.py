"""One event of a run and its line in ``events.jsonl``.

A line is one JSON object in UTF-8, ended by a line feed: ``id`` (``E12``: the line's number), ``ts``,
``type``, ``role``, ``span``, ``parent``, ``seconds`` and ``payload``. The first event is ``run_start``; its
payload holds ``schema_version``. Readers ignore fields and types they do not know.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marple.errors import CorruptTraceError

__all__ = ["EVENT_TYPES", "ROLES", "SCHEMA_VERSION", "Event", "check_version", "decode", "encode", "to_json"]

SCHEMA_VERSION = 1

EVENT_TYPES = (
    "run_start",
    "run_resume",
    "worker_start",
    "call_start",
    "model_call",
    "tool_call",
    "target_generation",
    "intervention",
    "measurement",
    "hypothesis",
    "prediction",
    "plan",
    "ensemble",
    "note",
    "check_in",
    "compaction",
    "approval",
    "limit",
    "error",
    "answer",
    "forecast",
    "replication",
    "trial",
    "score",
    "control",
    "run_end",
)
"""The types Marple writes."""

ROLES = ("investigator", "target", "judge", "auxiliary", "human", "harness")
"""Who an event is about."""


@dataclass(frozen=True)
class Event:
    """One thing that happened in a run."""

    id: str
    """``E`` and the line's number in ``events.jsonl``, counted from 1: short, stable, fit to be cited."""
    ts: float
    """When it was written, in seconds since the epoch."""
    type: str
    role: str
    span: str | None
    """Name of the stretch of work it belongs to, or None."""
    parent: str | None
    """Id of the event that caused it, or None."""
    seconds: float | None
    """How long the thing took, or None where that means nothing."""
    payload: dict[str, Any]


def to_json(value: Any) -> str:
    """The compact JSON text of ``value``.

    Raises:
        ValueError: the value is not JSON (a NaN, an infinity, an object JSON has no form for).
    """
    try:
        text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
        text.encode()
    except UnicodeEncodeError:
        # A lone surrogate (providers send them) has no UTF-8 form, but a \u escape keeps it.
        return json.dumps(value, allow_nan=False, separators=(",", ":"))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not JSON: {error}") from error
    return text


def encode(event: Event) -> str:
    """The line of ``event``, without its line feed."""
    return to_json(vars(event))


def decode(line: bytes, number: int) -> Event:
    """The event on line ``number`` (from 1).

    Raises:
        CorruptTraceError: the line is not an event, or not the one its number says.
    """
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise CorruptTraceError(f"line {number} is not JSON: {error}") from error
    if not isinstance(fields, Mapping):
        raise CorruptTraceError(f"line {number} is not an object")
    if fields.get("id") != f"E{number}":
        raise CorruptTraceError(f"line {number} has the id {fields.get('id')!r}, not 'E{number}'")
    event = Event(
        id=fields["id"],
        ts=fields.get("ts", 0.0),
        type=fields.get("type", ""),
        role=fields.get("role", "harness"),
        span=fields.get("span"),
        parent=fields.get("parent"),
        seconds=fields.get("seconds"),
        payload=fields.get("payload", {}),
    )
    _check_fields(event, number)
    return event


def check_version(version: object, where: str) -> None:
    """Refuse what a newer Marple wrote, or what no Marple wrote.

    Raises:
        CorruptTraceError: naming the version, ``where`` it stands and the newest this program reads.
    """
    if isinstance(version, bool) or not isinstance(version, int) or version < 1:
        raise CorruptTraceError(f"{where} has no schema_version (found {version!r}): not a trace of Marple's")
    if version > SCHEMA_VERSION:
        raise CorruptTraceError(
            f"{where} has schema_version {version}; this Marple reads up to {SCHEMA_VERSION}. "
            "A newer Marple wrote it: upgrade to read it"
        )


def _check_fields(event: Event, number: int) -> None:
    sound = (
        isinstance(event.ts, int | float)
        and isinstance(event.type, str)
        and isinstance(event.role, str)
        and isinstance(event.span, str | None)
        and isinstance(event.parent, str | None)
        and isinstance(event.seconds, int | float | None)
        and isinstance(event.payload, dict)
    )
    if not sound:
        raise CorruptTraceError(f"line {number} has a field of the wrong type")
    if number == 1:
        if event.type != "run_start":
            raise CorruptTraceError(f"line 1 is {event.type!r}, not 'run_start'")
        check_version(event.payload.get("schema_version"), "line 1")
