"""Investigator ``llm``: a language model that plans, experiments and concludes."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from importlib import resources

from marple.agent.forecasting import FORECAST_TOOL
from marple.agent.investigator import Investigator, Situation
from marple.agent.investigators import Entry, Options
from marple.agent.models import Model, ModelTurn, open_model

__all__ = ["INVESTIGATOR", "LlmInvestigator", "system_prompt"]

MAX_OUTPUT_TOKENS = 8192
"""Output tokens of one turn, reasoning included."""


class LlmInvestigator:
    """Plays with any model that implements the ``Model`` protocol."""

    name = "llm"
    uses_target = True

    def __init__(self, model: Model) -> None:
        self._model = model
        self.model_name: str | None = model.name
        self._system = system_prompt()
        self.prompt_sha256 = hashlib.sha256(self._system.encode()).hexdigest()

    async def next_turn(self, situation: Situation) -> ModelTurn:
        """One call of the model with the whole conversation."""
        return await self._model.generate(
            self._system, situation.messages, situation.tools, max_output_tokens=MAX_OUTPUT_TOKENS
        )

    async def forecast(self, situation: Situation, items: Sequence[Mapping[str, str]]) -> ModelTurn:
        """One call of the model with ``forecast`` as its only tool; the questions are in the conversation."""
        return await self._model.generate(
            self._system, situation.messages, [FORECAST_TOOL], max_output_tokens=MAX_OUTPUT_TOKENS
        )

    async def close(self) -> None:
        """Close the model's connections."""
        await self._model.close()


def system_prompt() -> str:
    """The method, from ``agent/prompts/investigator.md`` without its front matter."""
    text = resources.files("marple.agent").joinpath("prompts/investigator.md").read_text(encoding="utf-8")
    _, _, body = text.removeprefix("---\n").partition("\n---\n")
    return body.strip()


def _make(options: Options) -> Investigator:
    assert options.model is not None
    return LlmInvestigator(open_model(options.model, base_url=options.base_url, effort=options.effort))


INVESTIGATOR = Entry("llm", "a language model plans and runs the experiments", True, _make)
