"""JSON as it is typed on a command line: itself, ``@FILE``, or ``-`` for standard input."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from marple.errors import UsageError

__all__ = ["read_json"]


def read_json(text: str, how: str, *, lists: bool = False) -> Any:
    """The JSON that was typed, or that a file or standard input holds.

    Args:
        text: what was typed.
        how: a command that shows an example; errors name it.
        lists: take a list too, not only an object.

    Raises:
        UsageError: it cannot be read, or is not what is wanted; says where it goes wrong.
    """
    where = "the JSON typed"
    if text == "-":
        where, text = "standard input", sys.stdin.read()
    elif text.startswith("@"):
        where = text[1:]
        try:
            text = Path(where).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"the JSON cannot be read from {where!r}: {error}") from error
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        near = text[max(0, error.pos - 20) : error.pos + 20]
        raise UsageError(
            f"{where} is not JSON: {error.msg} (line {error.lineno}, column {error.colno}, near {near!r}); "
            f"put it between single quotes, or in a file as @FILE. {how} shows an example"
        ) from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where} is not JSON: {error or 'nested too deeply'}; {how} shows an example") from error
    if not isinstance(value, dict) and not (lists and isinstance(value, list)):
        shown = json.dumps(value)[:80]
        raise UsageError(f"{where} is not a JSON object like {{...}}, but {shown}; {how} shows an example")
    return value


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")
