"""What the investigators of these tests have in common: they need no target, and do as their name says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from marple.agent.investigator import Investigator, Situation
from marple.agent.investigators import Entry, Options
from marple.agent.models import ModelTurn, ToolCall, Usage

ANSWER = {"nothing_hidden": 0.6, "candidates": [], "claims": [], "summary": "done"}


class Player:
    """Submits at once, at a price; what comes before that is for others to say."""

    uses_target = False
    model_name: str | None = None

    def __init__(self, name: str, before: Callable[[], None]) -> None:
        self.name = name
        self._before = before

    async def next_turn(self, situation: Situation) -> ModelTurn:
        self._before()
        return ModelTurn(tool_calls=(ToolCall.of("submit", ANSWER, id="s"),), usage=Usage(cost_usd=1.0))

    async def forecast(self, situation: Situation, items: Sequence[Mapping[str, Any]]) -> ModelTurn:
        chances = {"probabilities": [0.5 for _ in items]}
        return ModelTurn(tool_calls=(ToolCall.of("forecast", chances, id="f"),), usage=Usage(cost_usd=0.0))

    async def close(self) -> None:
        """Nothing to release."""


def entry(name: str, before: Callable[[], None] = lambda: None) -> Entry:
    def make(options: Options) -> Investigator:
        return Player(name, before)

    return Entry(name, "for tests", False, make)


INVESTIGATOR = entry("player")
