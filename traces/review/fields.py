"""Reading JSON whose shape nobody promises: what is not of the wanted sort reads as nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["flag", "items", "mapping", "number", "of", "rows", "text", "whole"]


def mapping(value: object) -> Mapping[str, Any]:
    """``value`` where it is an object, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def items(value: object) -> Sequence[Any]:
    """``value`` where it is a list, else an empty one."""
    return value if isinstance(value, list | tuple) else ()


def rows(value: object) -> list[Mapping[str, Any]]:
    """The objects of a list."""
    return [one for one in items(value) if isinstance(one, Mapping)]


def text(value: object) -> str:
    """``value`` where it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def number(value: object) -> float | None:
    """``value`` where it is a finite number, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        real = float(value)
    except OverflowError:
        return None
    return real if math.isfinite(real) else None


def whole(value: object, default: int = 0) -> int:
    """``value`` where it is a whole number that a page can show, else ``default``."""
    return value if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 10**15 else default


def flag(value: object) -> bool | None:
    """``value`` where it is true or false, else None."""
    return value if isinstance(value, bool) else None


def of(value: object, *keys: str) -> Any:
    """What lies under ``keys`` in nested objects, or None."""
    for key in keys:
        if not isinstance(value, Mapping):
            return None
        value = value.get(key)
    return value
