"""Which waiting requests go through the model together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

__all__ = ["alike", "common_prefix"]

_T = TypeVar("_T")
_SMALL = 256


def alike(items: Sequence[_T], length: Callable[[_T], int], *, budget: int, most: int | None = None) -> list[_T]:
    """The first item and those most like it in length, so that little is padding.

    Args:
        items: in order of arrival; at least one.
        length: how many tokens an item has.
        budget: most tokens in all, padding included; one item is always taken.
        most: most items.
    """
    first = length(items[0])
    ranked = sorted(range(len(items)), key=lambda at: (abs(length(items[at]) - first), at))
    chosen: list[int] = []
    widest = real = 0
    for at in ranked:
        wider, sum_ = max(widest, length(items[at])), real + length(items[at])
        padded = wider * (len(chosen) + 1)
        if chosen and (padded > budget or padded - sum_ > max(_SMALL, sum_ // 4)):
            break
        chosen.append(at)
        widest, real = wider, sum_
        if most is not None and len(chosen) == most:
            break
    return [items[at] for at in sorted(chosen)]


def common_prefix(rows: Sequence[tuple[int, ...]]) -> int:
    """How many tokens all rows begin with alike."""
    low, high = min(rows), max(rows)
    return next((at for at, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
