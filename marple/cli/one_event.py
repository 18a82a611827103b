"""One event of a run in full, for a terminal; what its author is not trusted with is set off and made harmless."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape

from marple.errors import CorruptTraceError, UnknownNameError
from marple.tools.visible import visible
from marple.traces import EVENT_TYPES, Event, RunFolder

__all__ = ["cited_by", "event_record", "find_event", "print_event"]

_CITING = ("evidence", "call", "experiment", "prediction", "after")
"""Fields that hold ids of events."""

_SEEN = "as the model saw it; the text between the bars is the target's or a worker's: data, whatever it says"


def find_event(folder: RunFolder, events: Sequence[Event], text: str) -> Event:
    """The event with an id such as ``E12``; ``e12`` and ``12`` are understood too.

    Raises:
        UnknownNameError: there is none; says which there are.
    """
    wanted = f"E{text.strip().lstrip('Ee')}"
    for event in events:
        if event.id == wanted:
            return event
    there = f"{folder.run_id} has E1 to {events[-1].id}" if events else f"{folder.run_id} has no event yet"
    rest = f"; {folder.torn}" if folder.torn else ""
    raise UnknownNameError("event", text, [event.id for event in events], hint=f"({there}{rest})")


def event_record(folder: RunFolder, events: Sequence[Event], event: Event) -> dict[str, Any]:
    """What ``--json`` prints: the event, what the model was shown of it, and what cites it."""
    return {
        "run_id": folder.run_id,
        "event": vars(event),
        "seen": _view(events, event),
        "cited_by": [{"id": citing.id, "type": citing.type, "as": how} for citing, how in cited_by(events, event)],
    }


def cited_by(events: Sequence[Event], event: Event) -> list[tuple[Event, str]]:
    """The events that name this one, each with how: ``claim 1``, ``evidence``, ``call``, ``parent``."""
    found: list[tuple[Event, str]] = []
    for other in events:
        answer = other.payload.get("answer") if other.type == "answer" else None
        claims = answer.get("claims", []) if isinstance(answer, Mapping) else []
        ways = [f"claim {number}" for number, claim in enumerate(claims, 1) if event.id in _ids_in(claim)]
        if not ways and event.id in set(_ids_in(other.payload)):
            ways = [next(name for name in _CITING if event.id in set(_ids_in(other.payload, only=name)))]
        if not ways and other.parent == event.id:
            ways = ["parent"]
        found += [(other, way) for way in ways]
    return found


def print_event(folder: RunFolder, events: Sequence[Event], event: Event, *, console: Console) -> None:
    """Print everything about an event."""
    when = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(event.ts))
    took = "" if event.seconds is None else f" · {event.seconds:.1f} s"
    parent = f" · from {event.parent}" if event.parent else ""
    _say(console, f"[bold]{_safe(event.id)} {_safe(event.type)}[/] · {_safe(event.role)} · {when}{took}{_safe(parent)}")
    if event.type not in EVENT_TYPES:
        _say(console, f"[yellow]This Marple does not know events of type {_safe(repr(event.type))}; as it stands:[/]")
    payload = dict(event.payload)
    if event.type == "tool_call":
        _print_call(console, folder, events, event, payload)
    elif event.type == "model_call":
        _print_turn(console, payload)
    _print_rest(console, payload)
    citing = cited_by(events, event)
    for other, how in citing:
        _say(console, f"[bold]cited by[/]  {_safe(other.id)} {_safe(other.type)} ({how}){_safe(_gist(other, how))}")
    if not citing:
        _say(console, "[bold]cited by[/]  nothing")


def _print_call(
    console: Console, folder: RunFolder, events: Sequence[Event], event: Event, payload: dict[str, Any]
) -> None:
    _say(console, f"[bold]{_safe(payload.pop('tool', '?'))}[/]  {_safe(payload.pop('status', '?'))}{_cost(payload)}")
    _print_value(console, "arguments", payload.pop("arguments", None))
    payload.pop("text", None)
    seen = _view(events, event)
    if seen is None:
        _say(console, "[yellow]what the model saw cannot be told: the event is not as this Marple writes it[/]")
    else:
        _print_seen(console, seen)
    for name in ("controls", "data"):
        ref, value = payload.pop(f"{name}_ref", None), payload.pop(name, None)
        if ref is not None:
            value = _blob(console, folder, name, ref)
        if value:
            _print_value(console, name, value, most=40 if name == "data" else None)


def _print_turn(console: Console, payload: dict[str, Any]) -> None:
    turn = payload.pop("turn", None)
    if not isinstance(turn, Mapping):
        return
    for thought in turn.get("thinking") or ():
        _print_text(console, "thinking", thought if isinstance(thought, str) else json.dumps(thought))
    if turn.get("text"):
        _print_text(console, "text", str(turn["text"]))
    for call in turn.get("tool_calls") or ():
        _print_value(console, f"calls {call.get('name')}", call.get("arguments", call.get("raw")))
    shown = ("thinking", "text", "tool_calls")
    payload["turn"] = {name: value for name, value in turn.items() if name not in shown and value not in (None, [], {})}


def _print_seen(console: Console, seen: str) -> None:
    """The message, its untrusted lines each behind a bar: no text of a target's can look like ours."""
    head, opened, rest = seen.partition(": [\n")
    _say(console, f"[bold]seen[/]  [dim]{_SEEN}[/]")
    _say(console, f"  {_safe(head + (': [' if opened else ''))}")
    if opened:
        body, _, _ = rest.rpartition("\n]")
        for line in body.split("\n"):
            _say(console, f"  [magenta]│[/] {_safe(line)}")
        _say(console, "  ]}")


def _print_rest(console: Console, payload: Mapping[str, Any]) -> None:
    for name, value in payload.items():
        if value not in (None, [], {}, ""):
            _print_value(console, name, value)


def _print_value(console: Console, name: str, value: Any, *, most: int | None = None) -> None:
    """A JSON value under its name; strings with line feeds in them stay one line each."""
    lines = json.dumps(value, indent=2, ensure_ascii=False).split("\n")
    _say(console, f"[bold]{_safe(name)}[/]" + (f"  {_safe(lines[0])}" if len(lines) == 1 else ""))
    if len(lines) > 1:
        for line in lines[:most]:
            _say(console, f"  {_safe(line)}")
        if most is not None and len(lines) > most:
            _say(console, f"  [dim]and {len(lines) - most:,} lines more: marple show RUN EVENT --json[/]")


def _print_text(console: Console, name: str, text: str) -> None:
    _say(console, f"[bold]{name}[/]")
    for line in text.split("\n"):
        _say(console, f"  [magenta]│[/] {_safe(line)}")


def _blob(console: Console, folder: RunFolder, name: str, ref: str) -> Any:
    try:
        return json.loads(folder.get_blob(ref))
    except (CorruptTraceError, ValueError) as error:
        _say(console, f"[yellow]{name} cannot be shown: {_safe(str(error))}[/]")
        return None


def _view(events: Sequence[Event], event: Event) -> str | None:
    """What the model was shown of a tool call; None for other events, and for one that is not whole."""
    from marple.agent.boundary import result_view, untrusted_field

    if event.type != "tool_call":
        return None
    try:
        return result_view(event, untrusted_field(events[0]))
    except (KeyError, TypeError, ValueError, AttributeError):
        return None


def _ids_in(value: Any, *, only: str | None = None, under: str = "") -> Iterator[str]:
    """The ids of events in the fields that hold some."""
    if isinstance(value, str):
        if under in _CITING and only in (None, under):
            yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield from _ids_in(item, only=only, under=str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _ids_in(item, only=only, under=under)


def _cost(payload: dict[str, Any]) -> str:
    cost = payload.pop("cost", None)
    if not isinstance(cost, Mapping):
        return ""
    tokens = ", ".join(f"{value:,.6g} {name.replace('_', ' ')}" for name, value in cost.items() if value)
    return f" · {_safe(tokens)}" if tokens else ""


def _gist(event: Event, how: str) -> str:
    from marple.cli.event_lines import event_line

    number = how.removeprefix("claim ")
    if number != how:
        claim = event.payload["answer"]["claims"][int(number) - 1]
        return f"  {claim.get('credence')}  {claim.get('statement')}"
    line = event_line(event)
    return f"  {line}" if line else ""


def _say(console: Console, text: str) -> None:
    # A line that the terminal folds is still one line: nothing is cut, and a copy of it is whole.
    console.print(text, soft_wrap=True)


def _safe(text: Any) -> str:
    return escape(visible(str(text)))
