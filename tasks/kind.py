"""What a kind of task is: a question, the form of its answer and how the answer is scored.

A kind is one module in ``marple.tasks.kinds`` that defines ``KIND``, an instance of a subclass of `Kind`; it is found
without a registry. Beside it lies its brief in Markdown.
"""

from __future__ import annotations

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field

from marple.errors import UnknownNameError
from marple.tasks.budget import Budget
from marple.tasks.claims import Claim, Shows
from marple.tasks.truth import Truth

if TYPE_CHECKING:
    from marple.tasks.organisms import Built, Organism
    from marple.tasks.trials import Trial, Vectors

__all__ = [
    "EVERY_TOOL",
    "Answer",
    "BriefFacts",
    "Claim",
    "Forecasts",
    "Kind",
    "Shows",
    "SlotForm",
    "find_kind",
    "load_kinds",
]

EVERY_TOOL = (
    *("chat", "battery", "prefill", "complete", "logprobs", "compare", "contrast", "read_thinking", "resample"),
    *("search_transcripts", "steer", "probe", "project", "logit_lens", "patch", "attribute", "diff_activations"),
    *("sae_features", "sae_compare", "sae_lookup", "sae_search", "sae_steer", "python"),
)
"""The tools that most kinds afford."""

Forecasts = Literal["replies", "fires"]
"""What is asked when the answer is frozen: whose a reply is, or whether a prompt sets the behaviour off."""


class Answer(BaseModel):
    """What every kind's answer has; a kind adds its own fields."""

    model_config = ConfigDict(extra="forbid")

    claims: list[Claim] = Field(default_factory=list, description="What you found, each with its evidence.")
    summary: str = Field(default="", description="A short report for a person: what you did and what you conclude.")


@dataclass(frozen=True)
class BriefFacts:
    """What a brief may tell; nothing here depends on what is hidden."""

    case_id: str
    world: str
    """Public description of the model family, or of what is known about a user's own model."""
    has_reference: bool
    given: str = ""
    """What this case tells of the behaviour that it is about; see `Kind.given`."""
    reference: str = "The reference is the model the target was fine-tuned from. It has nothing hidden."
    """What the reference is, where there is one."""


@dataclass(frozen=True)
class SlotForm:
    """What a part of a truth may be."""

    values: tuple[str, ...] | None
    """Its values; None where any text is one."""
    required: bool
    """Whether every truth with something hidden has it."""


class Kind(ABC):
    """A kind of task."""

    name: ClassVar[str]
    north_star: ClassVar[str]
    comparability: ClassVar[int] = 1
    """Raised when scores stop being comparable with earlier ones."""
    affordances: ClassVar[tuple[str, ...]] = EVERY_TOOL
    """Worker tools that a case of this kind allows unless it says otherwise."""
    budget: ClassVar[Budget] = Budget()
    answer: ClassVar[type[Answer]]
    example: ClassVar[Mapping[str, Any]]
    """A valid answer, shown with every refusal; about things that no case has."""
    forecasts: ClassVar[tuple[Forecasts, ...]] = ()
    """What is asked when the answer is frozen."""

    def brief(self, facts: BriefFacts) -> str:
        """The Markdown the investigator reads first: the file named after the kind, with the facts put in."""
        file = resources.files("marple.tasks.kinds").joinpath(f"{self.name.replace('-', '_')}.md")
        reference = facts.reference if facts.has_reference else "There is no reference model for this target."
        return file.read_text(encoding="utf-8").format(
            case_id=facts.case_id, world=facts.world.strip(), reference=reference, given=facts.given.strip()
        )

    def given(self, organism: Organism) -> str:
        """What the brief of a case on this organism tells of the behaviour it is about; '' where that is what is asked.

        It must be the same for an organism and its clean twin.
        """
        return ""

    def slots(self) -> Mapping[str, SlotForm]:
        """The parts that the truth of a case of this kind may have: those that a candidate of the answer states."""
        field = self.answer.model_fields.get("candidates")
        if field is None:
            return {}
        (candidate,) = get_args(field.annotation)
        stated = candidate.model_construct(**dict.fromkeys(candidate.model_fields, "")).slots()
        return {
            name: SlotForm(get_args(it.annotation) if get_origin(it.annotation) is Literal else None, it.is_required())
            for name, it in candidate.model_fields.items()
            if name in stated
        }

    @abstractmethod
    def prior_answer(self) -> Mapping[str, Any]:
        """The answer of somebody who knows only the brief."""

    def handles(self, answer: Answer) -> Sequence[str]:
        """Names of the vectors and probes that an answer hands in; their numbers are kept when it is frozen."""
        return ()

    def trial(self, answer: Answer, vectors: Vectors, organism: Organism, *, seed: int) -> Trial | None:
        """What must be measured on a fresh worker to score this answer; None where the answer says it all.

        Raises:
            ToolError: the answer hands in something that cannot be tried; the investigator may correct it.
        """
        return None

    def corpus(self, built: Built) -> Path | None:
        """A JSONL file of transcripts that a case on this organism comes with."""
        return None

    @abstractmethod
    def score(self, answer: Answer, truth: Truth, trial: Mapping[str, Any]) -> dict[str, Any]:
        """Scores of a frozen answer; JSON values.

        Args:
            answer: as it was frozen.
            truth: the known answer.
            trial: what was measured of the answer; empty for a kind without a trial.

        Returns:
            At least ``solved`` (organisms) and ``cleared`` (targets with nothing hidden), each None where it does not
            apply.
        """

    def with_forecasts(self, scores: Mapping[str, Any]) -> dict[str, Any]:
        """All scores of a run, once its forecasts are scored too; a kind whose ``solved`` rests on them says so here.

        Args:
            scores: those of `score`, and ``forecast`` and ``fires`` where they were asked.
        """
        return dict(scores)


def load_kinds() -> dict[str, Kind]:
    """All kinds by name."""
    package = importlib.import_module("marple.tasks.kinds")
    kinds: dict[str, Kind] = {}
    for module in pkgutil.iter_modules(package.__path__):
        kind: Kind = importlib.import_module(f"marple.tasks.kinds.{module.name}").KIND
        kinds[kind.name] = kind
    return kinds


def find_kind(name: str) -> Kind:
    """The kind with this name.

    Raises:
        UnknownNameError: when there is none.
    """
    kinds = load_kinds()
    if name not in kinds:
        raise UnknownNameError("task kind", name, kinds)
    return kinds[name]
