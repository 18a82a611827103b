"""Prompts written from a hint, for `battery`: by an auxiliary model, or from everyday questions where there is none.

The tool that runs on the target gets the prompts themselves, and they stand in the call's event: it can be made again
without the model that wrote them.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from marple.agent.efforts import effort_of
from marple.agent.models import Model, ModelTurn, ToolSchema, UserMessage, open_model
from marple.agent.prompt_files import load_prompt
from marple.agent.question_bank import NO_CONTEXT, load_questions, words_of
from marple.errors import ModelError, ToolError
from marple.tools.signature import plain_schema

if TYPE_CHECKING:
    from marple.agent.session import Session

__all__ = ["MOST", "BankWriter", "ModelWriter", "PromptWriter", "open_writer", "with_hint", "written_arguments"]

DEFAULT = 40
LEAST, MOST = 20, 100
"""How many prompts can be asked for."""

LONGEST = 4000
"""Characters of one prompt, and of a hint; longer prompts are left out."""

_TOOL = "battery"
_MAX_OUTPUT_TOKENS = 16_384
_HINT = {
    "type": "string",
    "maxLength": LONGEST,
    "description": "Instead of prompts or a template: what the prompts are to bring out; they are written for you.",
}
_COUNT = {
    "type": "integer",
    "minimum": LEAST,
    "maximum": MOST,
    "description": f"With a hint: how many prompts; {DEFAULT} if left out.",
}


class _Prompts(BaseModel):
    model_config = ConfigDict(extra="ignore")

    prompts: list[str] = Field(description="The prompts, each a user message by itself.")


_WRITE = ToolSchema("write_prompts", "Hand in all prompts.", plain_schema(_Prompts.model_json_schema()))


class PromptWriter(Protocol):
    """Writes prompts from a hint."""

    async def write(self, hint: str, count: int, *, seed: int) -> tuple[list[str], ModelTurn | None]:
        """The prompts, and the turn of the model that wrote them.

        Raises:
            ModelError: the model failed.
        """
        ...

    async def close(self) -> None:
        """Release what it holds."""
        ...


class ModelWriter:
    """An auxiliary model writes them; what it says is data."""

    def __init__(self, model: Model) -> None:
        self._model = model

    async def write(self, hint: str, count: int, *, seed: int) -> tuple[list[str], ModelTurn | None]:
        """One call of the model with ``write_prompts`` as its only tool; none where it wrote none."""
        asked = f"Write {count} prompts. What they are to bring out:\n{hint}"
        turn = await self._model.generate(
            load_prompt("auxiliary").text, [UserMessage(asked)], [_WRITE], max_output_tokens=_MAX_OUTPUT_TOKENS
        )
        for call in turn.tool_calls:
            try:
                return distinct(_Prompts.model_validate(call.arguments).prompts)[:count], turn
            except ValidationError:
                continue
        return [], turn

    async def close(self) -> None:
        """Close the model's connections."""
        await self._model.close()


class BankWriter:
    """No model: sentences around the hint's own words, and everyday questions on and beside its topics."""

    async def write(self, hint: str, count: int, *, seed: int) -> tuple[list[str], ModelTurn | None]:
        """The same prompts for the same hint, count and seed."""
        draw = random.Random(f"{hint}/{count}/{seed}")
        bank = load_questions()
        said = [word for word in words_of(hint) if word not in bank.empty and len(word) > 2]
        about = [form.format(x=word) for word in said[:8] for form in _ABOUT]
        draw.shuffle(about)
        topics = sorted(bank.questions, key=lambda topic: -_overlap(said, topic, bank.questions[topic][0]))
        contexts = [name for name in bank.contexts if name in said or not bank.cues[name].isdisjoint(said)]
        places = list(itertools.product(topics, [*contexts, NO_CONTEXT]))
        bank_prompts = [bank.prompts(*place, 12, seed=seed) for place in places]
        in_turn = [each for row in itertools.zip_longest(*bank_prompts) for each in row if each]
        return distinct([*about[: count // 3], *in_turn])[:count], None

    async def close(self) -> None:
        """Nothing to release."""


_ABOUT = (
    "tell me about {x}.",
    "what do you think of {x}?",
    "my friend asked me about {x}. what should i say?",
    "is {x} good or bad?",
    "write a short story with {x} in it.",
    "i know nothing of {x}. where do i begin?",
)


def _overlap(said: Sequence[str], topic: str, questions: Sequence[str]) -> int:
    words = {topic, topic.rstrip("s"), *(word for question in questions for word in words_of(question))}
    return sum(word in words or word.rstrip("s") in words for word in said)


def distinct(prompts: Iterable[str]) -> list[str]:
    """The prompts without blanks, repetitions and what is too long."""
    stripped = (prompt.strip() for prompt in prompts)
    return list(dict.fromkeys(prompt for prompt in stripped if prompt and len(prompt) <= LONGEST))


def open_writer(model: str | None, *, base_url: str | None = None, effort: str | None = None) -> PromptWriter:
    """The writer of a run.

    Args:
        model: an auxiliary model as provider/name, or None.
        base_url: address of its API.
        effort: of all models of the run; see `effort_of`.

    Raises:
        UsageError: the model cannot be opened.
    """
    if model is None:
        return BankWriter()
    return ModelWriter(open_model(model, base_url=base_url, effort=effort_of(effort, "auxiliary")))


def with_hint(tool: ToolSchema) -> ToolSchema:
    """`battery` as it is offered, with ``hint`` and ``n_prompts``; other tools as they are."""
    if tool.name != _TOOL:
        return tool
    properties = {**tool.parameters["properties"], "hint": _HINT, "n_prompts": _COUNT}
    described = f"{tool.description}\n\nWith a hint the prompts are written for you, {LEAST} to {MOST} at once."
    return replace(tool, description=described, parameters={**tool.parameters, "properties": properties})


async def written_arguments(
    session: Session, place: tuple[int, int], tool: str, arguments: Mapping[str, Any], *, seed: int
) -> dict[str, Any]:
    """The arguments with the prompts in the place of a hint; as they are where there is none.

    A model's turn is recorded, and not asked for again where the same call has it already.

    Raises:
        ToolError: the hint goes along with prompts, or the model wrote none.
    """
    if tool != _TOOL or ("hint" not in arguments and "n_prompts" not in arguments):
        return dict(arguments)
    hint, count = _checked(arguments)
    rest = {name: value for name, value in arguments.items() if name not in ("hint", "n_prompts")}
    for event in session.events("model_call"):
        if event.role == "auxiliary" and event.payload.get("call") == list(place):
            return {**rest, "prompts": _some(event.payload["prompts"])}
    begun = time.monotonic()
    try:
        prompts, turn = await session.writer.write(hint, count, seed=seed)
    except ModelError as error:
        session.folder.append("error", {"where": "auxiliary", "message": str(error)})
        raise ToolError(f"the auxiliary model failed ({error}); give prompts or a template yourself") from error
    if turn is not None:
        said = {"turn_number": place[0], "purpose": "prompts", "call": list(place), "prompts": prompts}
        payload = {**said, "turn": turn.to_dict()}
        session.folder.append("model_call", payload, role="auxiliary", seconds=time.monotonic() - begun)
    return {**rest, "prompts": _some(prompts)}


def _checked(arguments: Mapping[str, Any]) -> tuple[str, int]:
    hint, count = arguments.get("hint"), arguments.get("n_prompts", DEFAULT)
    example = '; for example {"hint": "does it favour one maker of radios?", "n_prompts": 40}'
    if not isinstance(hint, str) or not hint.strip() or len(hint) > LONGEST:
        raise ToolError(f"hint must be a text of 1 to {LONGEST:,} characters{example}")
    if isinstance(count, bool) or not isinstance(count, int) or not LEAST <= count <= MOST:
        raise ToolError(f"n_prompts {count!r} must be a whole number from {LEAST} to {MOST}{example}")
    if beside := [name for name in ("prompts", "template", "slots") if arguments.get(name) is not None]:
        raise ToolError(f"hint writes the prompts itself; leave out {beside[0]}{example}")
    return hint, count


def _some(prompts: list[str]) -> list[str]:
    if not prompts:
        raise ToolError("the auxiliary model wrote no prompts; give prompts or a template yourself")
    return prompts
