"""The view of a tool's result: the effect's pieces and, beside them, those of its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marple.traces.event import Event
from marple.traces.review import (
    views_comparing,
    views_features,
    views_mechanisms,
    views_prompting,
    views_vectors,
)
from marple.traces.review.blocks import Block, Cell, Note, Table
from marple.traces.review.fields import items, mapping, number
from marple.traces.review.opened import Opened

__all__ = ["argument_rows", "tool_blocks"]

_MODULES = (views_prompting, views_comparing, views_vectors, views_mechanisms, views_features)
_VIEWS = {name: view for module in _MODULES for name, view in module.VIEWS.items()}
_LISTED = 80
_LONGEST = 2_000


def tool_blocks(run: Opened, event: Event) -> tuple[list[Block], list[Block]]:
    """The pieces of a result, and those of its controls."""
    data, controls = dict(run.part(event, "data")), run.part(event, "controls")
    view = _VIEWS.get(str(event.payload.get("tool")))
    if not data and not controls:
        return [], []
    try:
        found: Sequence[Block] = list(view(_asked(event) | data, controls)) if view else _any_result(data, controls)
    except Exception as error:
        # Data of another version, or of a plug-in with a known name: shown as it is, and said.
        reason = f"This result is not in the form that {event.payload.get('tool')} has now ({type(error).__name__})."
        found = [Note("Shown as it is", reason, "unsure"), *_any_result(data, controls)]
    return [one for one in found if not one.control], [one for one in found if one.control]


def _asked(event: Event) -> dict[str, Any]:
    """Arguments without which a result cannot be read: what was said to the target, and which of it is what."""
    given = mapping(event.payload.get("arguments"))
    return {name: given[name] for name in ("conversations", "labels") if name in given}


def argument_rows(arguments: object) -> list[tuple[str, list[str], bool]]:
    """Each argument's name, its value as lines, and whether it is code or long text."""
    return [(str(name), _lines(value), _is_long(value)) for name, value in mapping(arguments).items()]


def _lines(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    listed = items(value)
    if listed and all(_role_and_text(one) for one in listed):
        return [f"{one['role']}: {one['content']}" for one in listed[:_LISTED]]
    if listed and all(isinstance(one, str | int | float | list | dict) for one in listed):
        more = [f"… and {len(listed) - _LISTED:,} more"] if len(listed) > _LISTED else []
        return [*(_short(one) for one in listed[:_LISTED]), *more]
    if isinstance(value, Mapping):
        return [f"{key}: {_short(one)}" for key, one in list(value.items())[:_LISTED]]
    return [_short(value)]


def _is_long(value: Any) -> bool:
    return isinstance(value, str) and "\n" in value


def _role_and_text(value: Any) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("role"), str) and isinstance(value.get("content"), str)


def _short(value: Any, depth: int = 0) -> str:
    """A value on one line, cut where it is long."""
    if isinstance(value, str):
        return value[:_LONGEST] + ("…" if len(value) > _LONGEST else "")
    if depth > 4:
        return "…"
    if isinstance(value, Mapping):
        inside = ", ".join(f"{key}: {_short(one, depth + 1)}" for key, one in list(value.items())[:20])
        return f"{{{inside}}}"[:_LONGEST]
    if items(value):
        more = f", … {len(value) - 12} more" if len(value) > 12 else ""
        return f"[{', '.join(_short(one, depth + 1) for one in items(value)[:12])}{more}]"[:_LONGEST]
    real = number(value)
    return f"{real:.6g}" if isinstance(value, float) and real is not None else str(value)[:_LONGEST]


def _any_result(data: Mapping[str, Any], controls: Mapping[str, Any]) -> list[Block]:
    """Any data: lists of objects as tables, the rest as names and values."""
    found: list[Block] = []
    for part, control in ((data, False), (controls, True)):
        flat = [(name, value) for name, value in part.items() if not _is_table(value)]
        if flat:
            shown = [(Cell(str(name)), Cell(_short(value))) for name, value in flat[:_LISTED]]
            found.append(
                Table("Controls" if control else "Result", ("name", "value"), shown, untrusted=True, control=control)
            )
        for name, value in part.items():
            if _is_table(value):
                found.append(_table(str(name), value, control))
    return found


def _is_table(value: Any) -> bool:
    return bool(items(value)) and all(isinstance(one, Mapping) for one in value)


def _table(name: str, value: Sequence[Mapping[str, Any]], control: bool) -> Table:
    columns = list(dict.fromkeys(str(key) for row in value[:_LISTED] for key in row))[:10]
    return Table(
        name.replace("_", " ").capitalize(),
        columns,
        [[Cell(_short(row.get(key))) for key in columns] for row in value[:_LISTED]],
        note=f"{len(value) - _LISTED:,} more rows are in the data" if len(value) > _LISTED else "",
        untrusted=True,
        control=control,
    )
