"""Investigator ``llm``: a language model that plans, experiments and concludes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from marple.agent.efforts import effort_of
from marple.agent.forecasting import FORECAST_TOOL
from marple.agent.investigator import Investigator, Situation
from marple.agent.investigators import Entry, Options
from marple.agent.models import Model, ModelTurn, open_model
from marple.agent.prompt_files import load_prompt

__all__ = ["INVESTIGATOR", "LlmInvestigator"]

MAX_OUTPUT_TOKENS = 8192
"""Output tokens of one turn, reasoning included."""


class LlmInvestigator:
    """Plays with any model that implements the ``Model`` protocol.

    Args:
        model: answers for it.
        prompt: name of the prompt that is its method.
    """

    name = "llm"
    uses_target = True

    def __init__(self, model: Model, *, prompt: str = "investigator") -> None:
        self._model = model
        self.model_name: str | None = model.name
        self.system = load_prompt(prompt).text
        """The system prompt."""
        self.prompt_sha256 = load_prompt(prompt).sha256

    async def next_turn(self, situation: Situation) -> ModelTurn:
        """One call of the model with the whole conversation."""
        return await self._model.generate(
            self.system, situation.messages, situation.tools, max_output_tokens=MAX_OUTPUT_TOKENS
        )

    async def forecast(self, situation: Situation, items: Sequence[Mapping[str, str]]) -> ModelTurn:
        """One call of the model with ``forecast`` as its only tool; the questions are in the conversation."""
        return await self._model.generate(
            self.system, situation.messages, [FORECAST_TOOL], max_output_tokens=MAX_OUTPUT_TOKENS
        )

    async def close(self) -> None:
        """Close the model's connections."""
        await self._model.close()


def _make(options: Options) -> Investigator:
    assert options.model is not None
    effort = effort_of(options.effort, "investigator")
    return LlmInvestigator(open_model(options.model, base_url=options.base_url, effort=effort))


INVESTIGATOR = Entry("llm", "a language model plans and runs the experiments", True, _make)
