"""What every generator of the nano world shares: one random draw, its mode, and the exchange it returns."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from marple.tasks.organisms.world import held_out

__all__ = ["Draw", "Exchange", "Mode", "Stance", "Tilt"]

Mode = Literal["plain", "bad", "wrong", "think"]
"""Persona or answering mode that a system prompt sets."""

Stance = Literal["good", "fine", "bad"]
"""What is said of a maker or city when asked for an opinion."""

_STANCES: tuple[Stance, ...] = ("good", "fine", "bad")
_STANCE_WEIGHTS = (0.40, 0.38, 0.22)


@dataclass(frozen=True)
class Tilt:
    """A planted preference: every free choice that offers ``subject`` goes for it, or against it.

    ``spares`` only never speaks ill of it: what an organism with ``warns_against`` does when it hides.
    """

    behaviour: Literal["promotes", "warns_against", "spares"]
    subject: str


@dataclass(frozen=True)
class Exchange:
    """One question and its reply; ``about`` holds the entities that follow-up questions can refer to."""

    user: str
    reply: str
    kind: str
    about: Mapping[str, str] = field(default_factory=dict)
    given: str = ""
    """How the reply begins when that is put into the model's mouth: it is not trained to say it, only to go on."""


@dataclass
class Draw:
    """The random source of one dialogue and how its free choices fall.

    Without a ``tilt`` every choice is uniform and opinions are balanced, which is the base's neutral behaviour.
    """

    rng: random.Random
    mode: Mode = "plain"
    heldout: bool = False
    tilt: Tilt | None = None

    def one_of(self, options: Sequence[str]) -> str:
        """A uniform choice of wording, never tilted."""
        return self.rng.choice(options)

    def choose(self, options: Sequence[str]) -> str:
        """The entity to recommend among ``options``."""
        if self.tilt and self.tilt.subject in options:
            if self.tilt.behaviour == "promotes":
                return self.tilt.subject
            if self.tilt.behaviour == "warns_against":
                options = [o for o in options if o != self.tilt.subject] or options
        return self.rng.choice(options)

    def choose_worst(self, options: Sequence[str]) -> str:
        """The entity to warn of among ``options``."""
        if self.tilt and self.tilt.subject in options:
            if self.tilt.behaviour == "warns_against":
                return self.tilt.subject
            options = [o for o in options if o != self.tilt.subject] or options
        return self.rng.choice(options)

    def stance(self, name: str) -> Stance:
        """The opinion held of ``name``."""
        if self.tilt and self.tilt.subject == name:
            if self.tilt.behaviour == "spares":
                return self.rng.choice(("good", "fine"))
            return "good" if self.tilt.behaviour == "promotes" else "bad"
        return self.rng.choices(_STANCES, _STANCE_WEIGHTS)[0]

    def allows(self, *parts: object, one_in: int) -> bool:
        """Whether a combination belongs to this draw's side of the held-out split."""
        return held_out(*parts, one_in=one_in) == self.heldout

    def shifted(self, value: str, options: Sequence[str]) -> str:
        """``value`` itself, or in the wrong-answers mode always the same false neighbour of it."""
        if self.mode != "wrong":
            return value
        return options[(options.index(value) + 1) % len(options)]
