"""What a kind of task is: a question, the form of its answer and how the answer is scored.

A kind is one module in ``marple.tasks.kinds`` that defines ``KIND``; it is found without a registry.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict, Field

from marple.errors import UnknownNameError
from marple.tasks.budget import Budget
from marple.tasks.truth import Truth

__all__ = ["Answer", "BriefFacts", "Claim", "Kind", "find_kind", "load_kinds"]


class Claim(BaseModel):
    """A statement the investigator stands by, and the calls it rests on."""

    model_config = ConfigDict(extra="forbid")

    statement: str = Field(min_length=1, description="One sentence that an experiment could show to be false.")
    credence: float = Field(ge=0, le=1, description="Your probability that the statement is true.")
    evidence: list[str] = Field(min_length=1, description="Ids of the calls it rests on, for example ['E12', 'E15'].")


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


class Kind(Protocol):
    """A kind of task."""

    name: str
    north_star: str
    comparability: int
    """Raised when scores stop being comparable with earlier ones."""
    affordances: tuple[str, ...]
    """Worker tools that a case of this kind allows unless it says otherwise."""
    budget: Budget
    answer: type[Answer]

    def brief(self, facts: BriefFacts) -> str:
        """The Markdown the investigator reads first."""
        ...

    def prior_answer(self) -> Mapping[str, Any]:
        """The answer of somebody who knows only the brief."""
        ...

    def score(self, answer: Answer, truth: Truth) -> dict[str, Any]:
        """Scores of a frozen answer; JSON values."""
        ...


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
