"""Prompts that a brief gives as examples, one JSON object a line, and how a script asks them all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marple.agent.investigator import Done, Request

__all__ = ["Example", "Replies", "calls_on_target", "examples_in", "read_replies", "requests_for"]


@dataclass(frozen=True)
class Example:
    """One prompt in chat form, and how its reply begins."""

    messages: tuple[Mapping[str, str], ...]
    begins: str = ""

    @property
    def text(self) -> str:
        """The conversation as one text, as forecasts show it."""
        if len(self.messages) == 1:
            return self.messages[0]["content"]
        return "\n".join(f"{message['role']}: {message['content']}" for message in self.messages)

    @property
    def plain(self) -> bool:
        """Whether it is one message without anything around it."""
        return len(self.messages) == 1 and not self.begins


@dataclass(frozen=True)
class Replies:
    """What came of asking one prompt."""

    example: Example
    target: tuple[str, ...]
    reference: tuple[str, ...] = ()
    """Empty without a reference."""


def examples_in(brief: str) -> list[Example]:
    """The examples of a brief, in order; none where it has none."""
    found = []
    for line in brief.splitlines():
        if line.startswith('{"messages"'):
            given = json.loads(line)
            found.append(Example(tuple(given["messages"]), given.get("reply_begins", "")))
    return found


def requests_for(examples: Sequence[Example], *, samples: int, max_new_tokens: int, beside: bool) -> list[Request]:
    """Calls that ask every example: one for all plain ones, one or two for each of the others.

    Args:
        examples: what to ask.
        samples: replies to each.
        max_new_tokens: longest reply.
        beside: ask the reference too.
    """
    how = {"samples": samples, "max_new_tokens": max_new_tokens}
    plain = [example.messages[0]["content"] for example in examples if example.plain]
    requests = [Request("battery", {"prompts": plain, **how})] if plain else []
    for example in examples:
        if not example.plain:
            begun = {"prefill": example.begins} if example.begins else {}
            for on in ("target", "reference") if beside else ("target",):
                arguments = {"messages": list(example.messages), **begun, **how, "on": on}
                requests.append(Request("prefill" if begun else "chat", arguments))
    return requests


def read_replies(examples: Sequence[Example], done: Sequence[Done], *, beside: bool) -> list[Replies]:
    """What the calls of `requests_for` gave, without those that failed; the plain examples first."""
    rest, found = list(done), []
    plain = [example for example in examples if example.plain]
    if plain:
        battery = rest.pop(0)
        rows = sorted(battery.data["rows"], key=lambda row: row["index"]) if battery.ok else []
        found += [
            Replies(example, _texts(row["replies"]), _texts(row.get("reference_replies", ())))
            for example, row in zip(plain, rows, strict=bool(rows))
        ]
    for example in (one for one in examples if not one.plain):
        calls = [rest.pop(0) for _ in range(2 if beside else 1)]
        if all(call.ok for call in calls):
            found.append(Replies(example, *(_texts(_replies(call)) for call in calls)))
    return found


def calls_on_target(
    examples: Sequence[Example], done: Sequence[Done], *, beside: bool
) -> list[tuple[Done, Sequence[Example]]]:
    """The calls of `requests_for` that asked the target, each with the examples that it asked."""
    plain = [example for example in examples if example.plain]
    rest = done[1:] if plain else done
    alone = [example for example in examples if not example.plain]
    asked: list[tuple[Done, Sequence[Example]]] = [(done[0], plain)] if plain else []
    return asked + [(call, [example]) for call, example in zip(rest[:: 2 if beside else 1], alone, strict=True)]


def _replies(done: Done) -> Sequence[Mapping[str, Any]]:
    replies: Sequence[Mapping[str, Any]] = done.data["continuations" if done.tool == "prefill" else "replies"]
    return replies


def _texts(replies: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    return tuple(reply["text"] for reply in replies)
