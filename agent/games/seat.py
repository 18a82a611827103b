"""The seat of a player from outside: an investigator whose turns come from elsewhere."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from marple.agent.investigator import Situation
from marple.agent.models import ModelTurn, ToolCall, Usage

__all__ = ["Seat"]


class Seat:
    """Waits at each turn for what somebody else decides; how they decide is not known here.

    Args:
        name: by which way the player plays: ``shell`` or ``mcp``.
        player: who plays, as they call themselves; None where they do not say.
    """

    uses_target = True

    def __init__(self, name: str, player: str | None = None) -> None:
        self.name = name
        self.model_name = player
        self.asked = asyncio.Event()
        """Set while a turn is waited for."""
        self.situation: Situation | None = None
        """What the player knew when last asked."""
        self.questions: Sequence[Mapping[str, str]] | None = None
        """The held-out questions, while forecasts are asked for."""
        self._turn: asyncio.Future[ModelTurn] | None = None

    async def next_turn(self, situation: Situation) -> ModelTurn:
        """The next calls of the player."""
        return await self._wait(situation, None)

    async def forecast(self, situation: Situation, items: Sequence[Mapping[str, str]]) -> ModelTurn:
        """The player's call of ``forecast``."""
        return await self._wait(situation, items)

    async def close(self) -> None:
        """Nothing to release."""

    def give(self, calls: Sequence[ToolCall], why: str = "") -> None:
        """Take the turn that is waited for.

        Args:
            calls: at least one.
            why: what the player says of them; kept in the trace.
        """
        assert self._turn is not None
        assert calls
        self.asked.clear()
        # What the player spent on thinking is not known.
        usage = Usage(cost_usd=None, reported=False)
        self._turn.set_result(
            ModelTurn(text=why, tool_calls=tuple(calls), stop="tool_calls", usage=usage, model=self.model_name or "")
        )

    async def _wait(self, situation: Situation, questions: Sequence[Mapping[str, str]] | None) -> ModelTurn:
        self.situation, self.questions = situation, questions
        self._turn = asyncio.get_running_loop().create_future()
        self.asked.set()
        try:
            return await self._turn
        finally:
            self.asked.clear()
            self._turn = None
