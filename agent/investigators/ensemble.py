"""Investigator ``ensemble``: independent members first, then a synthesiser that checks what they found and answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from marple.agent.efforts import effort_of
from marple.agent.investigator import Investigator, ScriptInvestigator, Situation
from marple.agent.investigators import Entry, Options
from marple.agent.investigators.llm import LlmInvestigator
from marple.agent.members import Member
from marple.agent.models import ModelTurn, open_model
from marple.agent.synthesis import Synthesis
from marple.tasks.kind import Kind

__all__ = ["INVESTIGATOR", "EnsembleInvestigator"]


class EnsembleInvestigator:
    """The synthesiser: a language model where one is given, and otherwise a script."""

    name = "ensemble"
    uses_target = True

    def __init__(self, kind: Kind, model: LlmInvestigator | None = None) -> None:
        self._members: Sequence[Member] = ()
        self._inner: Investigator = model or ScriptInvestigator("ensemble", lambda: Synthesis(kind, self._members))
        self.model_name = None if model is None else model.model_name
        self.system = "" if model is None else model.system
        self.prompt_sha256 = None if model is None else model.prompt_sha256

    def meet(self, members: Sequence[Member]) -> None:
        """Take in the members' runs, before the first turn."""
        self._members = members

    async def next_turn(self, situation: Situation) -> ModelTurn:
        """The synthesiser's next turn."""
        return await self._inner.next_turn(situation)

    async def forecast(self, situation: Situation, items: Sequence[Mapping[str, str]]) -> ModelTurn:
        """The synthesiser's forecasts."""
        return await self._inner.forecast(situation, items)

    async def close(self) -> None:
        """Release what the synthesiser holds."""
        await self._inner.close()


def _make(options: Options) -> Investigator:
    if options.model is None:
        return EnsembleInvestigator(options.kind)
    effort = effort_of(options.effort, "synthesiser")
    model = open_model(options.model, base_url=options.base_url, effort=effort)
    return EnsembleInvestigator(options.kind, LlmInvestigator(model, prompt="synthesiser"))


INVESTIGATOR = Entry("ensemble", "independent members, then a synthesiser that checks what they found", None, _make)
