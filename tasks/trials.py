"""Trials: what an answer hands in is tried on a fresh worker, beside controls, and only then scored.

An answer may hand in an intervention, a monitor or a trigger: all of them data. A kind turns them into a `Trial`; the
agent side runs it with a fresh worker's tools and records what came of it, so that a trace can be scored again without
a model.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from marple.tools.contract import ToolResult

__all__ = ["Arm", "Asked", "CallTool", "ReplyTrial", "Trial", "Vectors", "share"]

CallTool = Callable[[str, Mapping[str, Any], int], Awaitable[ToolResult]]
"""Runs one tool of the fresh worker: name, arguments, seed."""

Vectors = Mapping[str, Mapping[str, Any]]
"""By handle, what `export_vectors` gave for it when the answer was frozen: ``site``, ``values``, ``bias``."""

_PROMPTS_PER_CALL = 64


class Trial(Protocol):
    """Something to be measured on a fresh worker."""

    async def run(self, call: CallTool) -> dict[str, Any]:
        """Measure; returns JSON values, all that `Kind.score` needs."""
        ...


@dataclass(frozen=True)
class Asked:
    """One held-out prompt of a trial."""

    group: str
    """The rate it counts towards, such as ``harm`` or ``arithmetic``."""
    messages: Sequence[Mapping[str, str]]
    counts: Callable[[str], bool]
    """Whether a reply counts."""
    prefill: str = ""
    also: Mapping[str, Callable[[str], bool]] = field(default_factory=dict)
    """Further rates that the same replies count towards, or not."""


@dataclass(frozen=True)
class Arm:
    """One way of asking: what was handed in, or a control beside it."""

    name: str
    system: str | None = None
    """A system prompt put before the conversation; before one that is there already."""
    edits: tuple[Mapping[str, Any], ...] = ()
    """Edits of activations as the tool ``intervene`` takes them, with their numbers inline."""


@dataclass(frozen=True)
class ReplyTrial:
    """The same prompts asked in several arms; what is measured is how many replies count, by arm and group."""

    asked: Sequence[Asked]
    arms: Sequence[Arm]
    seed: int
    samples: int = 1
    temperature: float = 1.0
    max_new_tokens: int = 40

    async def run(self, call: CallTool) -> dict[str, Any]:
        """Ask everything; returns ``{"arms": {arm: {group: {"count": replies that count, "n": replies}}}}``."""
        return {"arms": {arm.name: await self._counts(arm, call) for arm in self.arms}}

    async def _counts(self, arm: Arm, call: CallTool) -> dict[str, dict[str, int]]:
        counts: dict[str, dict[str, int]] = {}
        for some in _in_parts(self.asked, _PROMPTS_PER_CALL):
            arguments = {
                "conversations": [_under(arm.system, one.messages) for one in some],
                "prefills": [one.prefill for one in some],
                "edits": list(arm.edits),
                "samples": self.samples,
                "temperature": self.temperature,
                "max_new_tokens": self.max_new_tokens,
                "beside": False,
            }
            # The same seed in every arm, so that arms differ by what is tried alone.
            result = await call("intervene", arguments, self.seed)
            for one, replies in zip(some, result.data["replies"], strict=True):
                for name, shows in {one.group: one.counts, **one.also}.items():
                    group = counts.setdefault(name, {"count": 0, "n": 0})
                    group["count"] += sum(shows(text) for text in replies)
                    group["n"] += len(replies)
        return counts


def share(counts: Mapping[str, int]) -> float:
    """The share of replies that count."""
    return counts["count"] / counts["n"] if counts["n"] else 0.0


def _under(system: str | None, messages: Sequence[Mapping[str, str]]) -> list[dict[str, str]]:
    rest = [dict(message) for message in messages]
    if system is None:
        return rest
    if rest and rest[0]["role"] == "system":
        return [{"role": "system", "content": f"{system} {rest[0]['content']}"}, *rest[1:]]
    return [{"role": "system", "content": system}, *rest]


def _in_parts(items: Sequence[Asked], size: int) -> Iterable[Sequence[Asked]]:
    return (items[at : at + size] for at in range(0, len(items), size))
