"""The gap between tools and agent, read off a trace by machine: what was shown, what was noticed, what was concluded.

A part of the truth is *shown* when a result of a tool on the target contains it, *noticed* when a later hypothesis
names it, and *concluded* when the answer does. Where much is shown and little noticed, better tools will not help.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from marple.tasks.truth import Slot, Truth

__all__ = ["Happened", "gap"]

_READING = "read_result"
"""The notebook's tool that shows more of an earlier result."""

_FREE_TEXT = ("claims", "summary")
"""Parts of an answer in which a name says nothing about what is believed."""


class Happened(Protocol):
    """What is read of an event; a trace's ``Event`` is one."""

    @property
    def id(self) -> str:
        """Its id, such as ``E12``."""
        ...

    @property
    def type(self) -> str:
        """Its type."""
        ...

    @property
    def payload(self) -> Mapping[str, Any]:
        """What it holds."""
        ...


def gap(events: Iterable[Happened], truth: Truth) -> dict[str, Any] | None:
    """What became of each slot of the truth; None for a target with nothing hidden.

    Returns:
        ``slots``: for each the id of the first event that ``shown``, ``noticed`` and ``concluded`` it, or None, and
        under ``by_tool`` the first result of each tool that showed it. ``overall`` and, under ``by_tool``, every tool:
        how many slots there are (``n``) and how many were ``shown`` (by that tool), ``noticed`` and ``concluded``
        after that.
    """
    if truth.nothing_hidden or not truth.slots:
        return None
    happened = list(events)
    slots = {name: _slot(happened, slot) for name, slot in truth.slots.items()}
    tools = sorted({tool for one in slots.values() for tool in one["by_tool"]})
    return {
        "slots": slots,
        "overall": _counts(list(slots.values())),
        "by_tool": {
            tool: {**_counts([one for one in slots.values() if tool in one["by_tool"]]), "n": len(slots)}
            for tool in tools
        },
    }


def _counts(slots: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    return {
        "n": len(slots),
        "shown": sum(one["shown"] is not None for one in slots),
        "noticed": sum(one["noticed"] is not None for one in slots),
        "concluded": sum(one["concluded"] is not None for one in slots),
    }


def _slot(events: Sequence[Happened], slot: Slot) -> dict[str, Any]:
    names = [words for option in (slot.value, *slot.aliases) if (words := _words(option))]
    by_tool: dict[str, str] = {}
    noticed = concluded = None
    for event in events:
        payload = event.payload
        if event.type == "tool_call" and _shows(payload) and _names(str(payload.get("text", "")), names):
            by_tool.setdefault(str(payload["tool"]), event.id)
        elif event.type == "hypothesis" and by_tool and not noticed and _names(str(payload.get("statement")), names):
            noticed = event.id
        elif event.type == "answer" and any(_names(text, names) for text in _said(payload.get("answer", {}))):
            concluded = event.id
    shown = next(iter(by_tool.values()), None)
    return {"shown": shown, "noticed": noticed, "concluded": concluded, "by_tool": by_tool}


def _shows(payload: Mapping[str, Any]) -> bool:
    return payload.get("status") == "ok" and bool(payload.get("on_target") or payload.get("tool") == _READING)


def _said(answer: Mapping[str, Any]) -> Iterator[str]:
    """Every string of an answer but its free text."""
    for key, value in answer.items():
        if key not in _FREE_TEXT:
            yield from _strings(value)


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)


def _names(text: str, names: Sequence[str]) -> bool:
    said = f" {_words(text)} "
    return any(f" {name} " in said for name in names)


def _words(text: str) -> str:
    return " ".join(re.sub(r"[\W_]+", " ", text.casefold()).split())
