"""A model that says what it is told to, for tests and demonstrations."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from marple.agent.models.protocol import Message, ModelTurn, ToolSchema
from marple.errors import ModelError

__all__ = ["ScriptedCall", "ScriptedModel"]

Script: TypeAlias = Iterable[ModelTurn | Exception] | Callable[[Sequence[Message]], ModelTurn]


@dataclass(frozen=True)
class ScriptedCall:
    """What one call of ``generate`` was given."""

    system: str
    messages: tuple[Message, ...]
    tools: tuple[ToolSchema, ...]
    max_output_tokens: int
    effort: str | None


class ScriptedModel:
    """Plays a list of turns in order, or a function of the conversation.

    An exception in the list is raised in its place. A function that looks only at the messages makes a model
    that can be resumed: a list starts from its beginning in a new process.
    """

    def __init__(self, script: Script, *, name: str = "scripted") -> None:
        self.name = name
        self.calls: list[ScriptedCall] = []
        """Every call so far, oldest first."""
        self.closed = False
        self._answer = script if callable(script) else _player(script)

    async def generate(
        self,
        system: str,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema],
        *,
        max_output_tokens: int = 4096,
        effort: str | None = None,
        on_delta: Callable[[str], None] | None = None,
    ) -> ModelTurn:
        """The script's next turn.

        Raises:
            ModelError: the list has no further turn.
        """
        self.calls.append(ScriptedCall(system, tuple(messages), tuple(tools), max_output_tokens, effort))
        turn = self._answer(messages)
        if turn.tool_calls and turn.stop == "end":
            turn = replace(turn, stop="tool_calls")
        if on_delta is not None and turn.text:
            on_delta(turn.text)
        return replace(turn, model=turn.model or self.name)

    async def close(self) -> None:
        """Note that it was closed."""
        self.closed = True


def _player(script: Iterable[ModelTurn | Exception]) -> Callable[[Sequence[Message]], ModelTurn]:
    items = list(script)
    played = 0

    def play(_: Sequence[Message]) -> ModelTurn:
        nonlocal played
        if played == len(items):
            raise ModelError(f"the script has {len(items)} turns and was asked for one more")
        item = items[played]
        played += 1
        if isinstance(item, Exception):
            raise item
        return item

    return play
