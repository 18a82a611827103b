"""What a person types, read as the arguments of a call: JSON, ``key=value`` words, or a form asked field by field."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from typing import Any

from marple.agent.games.words import type_text
from marple.errors import ToolError

__all__ = ["Ask", "fill_form", "read_arguments"]

Ask = Callable[[str], str]
"""Shows a prompt and gives what is typed."""

Schema = Mapping[str, Any]


def read_arguments(text: str, schema: Schema) -> dict[str, Any]:
    """The arguments in a line: a JSON object, or words such as ``samples=4 prompts="who is it?"``.

    A value is JSON where it can be read as such and the argument is no text. A key that comes again, or stands for a
    list, makes a list. Where messages are wanted, plain text is the user's.

    Raises:
        ToolError: it is neither; names what could not be read and what the arguments are.
    """
    text = text.strip()
    names = ", ".join(schema.get("properties", {})) or "none"
    if text.startswith("{"):
        try:
            value = json.loads(text)
        except ValueError as error:
            raise ToolError(f"this is not JSON: {error}; the arguments are {names}") from error
        return dict(value)
    try:
        words = shlex.split(text)
    except ValueError as error:
        raise ToolError(f"the quotes do not close ({error}); the arguments are {names}") from error
    found: dict[str, Any] = {}
    for word in words:
        key, equals, raw = word.partition("=")
        if not equals or key not in schema.get("properties", {}):
            raise ToolError(f"{word!r} is not key=value with one of {names}; or type all of it as one JSON object")
        part = schema["properties"][key]
        value = _value(raw, part)
        if part.get("type") == "array":
            found[key] = [*found.get(key, []), *(value if isinstance(value, list) else [value])]
        else:
            found[key] = value
    return found


def _value(raw: str, schema: Schema) -> Any:
    """One value: text stays as it is, everything else is JSON where it can be."""
    if schema.get("type") == "string" or ("enum" in schema and raw in schema["enum"]):
        return raw
    items = schema.get("items", {})
    if schema.get("type") == "array" and items.get("type") == "string" and not raw.startswith("["):
        return raw
    if {"role", "content"} <= items.get("properties", {}).keys() and raw[:1] not in ("[", "{"):
        return {"role": "user", "content": raw}
    try:
        return json.loads(raw)
    except ValueError:
        return raw


def fill_form(schema: Schema, ask: Ask, say: Callable[[str], None], *, before: Mapping[str, Any] | None = None) -> Any:
    """Ask for every field of an object, those of nested objects too; what cannot be right is asked again.

    Args:
        schema: of the object.
        ask: asks one question.
        say: prints a line.
        before: what was filled in last time, kept where nothing is typed.
    """
    filled: dict[str, Any] = {}
    for name, part in schema.get("properties", {}).items():
        needed = name in schema.get("required", ())
        said = f"\n{name} ({type_text(part)}{', required' if needed else ''})"
        say(f"{said}: {part['description']}" if "description" in part else said)
        old = (before or {}).get(name)
        value = _field(name, part, ask, say, old=old, needed=needed)
        if value is not None:
            filled[name] = value
    return filled


def _field(name: str, schema: Schema, ask: Ask, say: Callable[[str], None], *, old: Any, needed: bool) -> Any:
    """The value of one field, or None where it is left out."""
    items = schema.get("items", {})
    if schema.get("type") == "array" and items.get("properties"):
        return _several(name, items, ask, say, old)
    if schema.get("properties"):
        return fill_form(schema, ask, say, before=old) if needed or _yes(ask, f"  give {name}? [y/N] ") else None
    keep = f" [{json.dumps(old, ensure_ascii=False)}]" if old is not None else ""
    while True:
        raw = ask(f"  {name}{keep} = ").strip()
        if not raw:
            if old is not None or not needed:
                return old
            say(f"  {name} is required")
            continue
        value, problem = _checked(raw, schema)
        if not problem:
            return value
        say(f"  {problem}")


def _several(name: str, schema: Schema, ask: Ask, say: Callable[[str], None], old: Any) -> list[Any]:
    if old and _yes(ask, f"  keep the {len(old)} of before? [y/N] "):
        return list(old)
    found: list[Any] = []
    while _yes(ask, f"  {'another' if found else 'add one'} to {name}? [y/N] "):
        found.append(fill_form(schema, ask, say))
    return found


def _checked(raw: str, schema: Schema) -> tuple[Any, str]:
    """The value, and what is wrong with it."""
    value = _value(raw, schema)
    kind = schema.get("type")
    if kind == "array":
        if isinstance(value, str):
            value = [part.strip() for part in value.split(",") if part.strip()]
        return value, "" if isinstance(value, list) else f"{raw!r} is not a list; type a, b, c"
    if "enum" in schema and value not in schema["enum"]:
        return value, f"{raw!r} is none of {', '.join(map(str, schema['enum']))}"
    if kind in ("number", "integer"):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value, f"{raw!r} is not a number"
        low, high = schema.get("minimum"), schema.get("maximum")
        if (low is not None and value < low) or (high is not None and value > high):
            return value, f"{raw} is not {type_text(schema).partition(' ')[2]}"
    return value, ""


def _yes(ask: Ask, question: str) -> bool:
    return ask(question).strip().lower() in ("y", "yes")
