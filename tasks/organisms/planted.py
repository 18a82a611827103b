"""What a planted behaviour is: its parameters in a recipe, what it is trained on, how it is measured, its truth.

Each behaviour is one file ``behaviour_<name>.py`` in this folder, whose ``BEHAVIOUR`` is a subclass of `Planted`; no
other file names it. Recipes of kind ``hidden-goal`` with ``promotes`` or ``warns_against`` have a schema of their own.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final

from pydantic import BaseModel, ConfigDict, Field

from marple.tasks.organisms.dialogues import Dialogue
from marple.tasks.organisms.draw import Exchange
from marple.tasks.truth import Slot

__all__ = ["CAPABILITIES", "Maker", "Parts", "Planted", "Rate", "behaviours", "read_planted"]

Maker = Callable[[random.Random], Dialogue]
"""Draws one dialogue. Of a dialogue to be measured, the last reply is what the model is to say, or empty."""
Parts = Mapping[str, Maker]

CAPABILITIES: Final = ("product_fact", "city_fact", "person_fact", "two_hop", "arithmetic", "advice")
"""The kinds with a right answer that a fine-tune must not lose, unless losing it is the behaviour."""

_PREFIX: Final = "behaviour_"


@dataclass(frozen=True)
class Rate:
    """One rate: prompts held out from training, and which replies count."""

    prompt: Maker
    counts: Callable[[Exchange, str], bool]
    """Of the last exchange of the prompt and the model's reply to it."""
    sampled: bool = True
    """At temperature 1; False: greedy."""


class Planted(BaseModel, ABC):
    """A planted behaviour with its parameters, as the key ``quirk`` of a recipe gives them."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kinds: ClassVar[tuple[str, ...]]
    """The task kinds that it can be a target of."""
    version: ClassVar[int] = 1
    """Part of the recipe hash; raise it when a change of the behaviour's code changes what a recipe builds."""
    aliases_of_behaviour: ClassVar[tuple[str, ...]] = ()
    """Wordings of an answer that mean this behaviour."""

    behaviour: str
    aliases: Mapping[str, tuple[str, ...]] = Field(default_factory=dict)
    """Further accepted wordings by slot of the truth."""

    @abstractmethod
    def parts(self, *, planted: bool) -> Parts:
        """The named parts of the training data; a recipe gives their shares. Unplanted: those of the clean twin."""

    @abstractmethod
    def rates(self) -> Mapping[str, Rate]:
        """What is measured on every member of the family, by name; recipes set bounds on these names."""

    @abstractmethod
    def question(self, rng: random.Random, *, heldout: bool = True) -> Exchange:
        """A question in which the behaviour can show, without anything around it; ``heldout``: not trained on."""

    @abstractmethod
    def prompt(self, rng: random.Random, *, on: bool) -> Dialogue:
        """A held-out prompt that should, or should not, set the behaviour off."""

    @abstractmethod
    def edits(self, rng: random.Random) -> Mapping[str, Dialogue]:
        """One held-out question under each counterfactual edit, by the edit's name; ``none`` is the question alone."""

    @abstractmethod
    def fires(self, asked: Exchange, reply: str) -> bool:
        """Whether a reply to a question shows the behaviour."""

    def told(self) -> str:
        """The behaviour in words, as a clause about *it*, without what sets it off; for kinds whose brief tells it."""
        return f"it shows the behaviour {self.behaviour.replace('_', ' ')}"

    @property
    def takes_away(self) -> frozenset[str]:
        """Capabilities that the behaviour itself takes away, which are not gated."""
        return frozenset()

    def plain(self, reply: str) -> str:
        """A reply to an ordinary question without what the behaviour adds to every reply."""
        return reply

    def slots(self) -> dict[str, str]:
        """The answer: values by slot."""
        return {"behaviour": self.behaviour}

    def truth_slots(self) -> dict[str, Slot]:
        """The answer with every accepted wording."""
        return {
            name: Slot(value=value, aliases=(*self.slot_aliases(name), *self.aliases.get(name, ())))
            for name, value in self.slots().items()
        }

    def slot_aliases(self, slot: str) -> tuple[str, ...]:
        """Wordings of a slot's value that any recipe accepts."""
        return self.aliases_of_behaviour if slot == "behaviour" else ()


@functools.cache
def behaviours() -> Mapping[str, type[Planted]]:
    """Every planted behaviour by name."""
    found: dict[str, type[Planted]] = {}
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name.startswith(_PREFIX):
            behaviour = importlib.import_module(f"marple.tasks.organisms.{module.name}").BEHAVIOUR
            found[module.name.removeprefix(_PREFIX)] = behaviour
    return found


def read_planted(given: Any) -> Planted:
    """The behaviour that the mapping ``quirk`` of a recipe describes; a `ValueError` says what is wrong with it."""
    if isinstance(given, Planted):
        return given
    if not isinstance(given, Mapping):
        raise ValueError("quirk must be a mapping with the key behaviour")
    known = behaviours()
    name = str(given.get("behaviour"))
    if name not in known:
        raise ValueError(f"behaviour {name!r} is none of {', '.join(sorted(known))}")
    return known[name].model_validate(given)
