"""The doses of an experiment: what came of each direction at each scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marple.tools.contract import Cost
from marple.tools.engine.sites import Site
from marple.tools.steering.fluency import Fluency
from marple.tools.steering.verdict import Verdict

__all__ = ["EFFECT", "Dose", "DoseResponse"]

EFFECT = "effect"
"""The name of the direction under test."""


@dataclass(frozen=True)
class Dose:
    """One direction at one scale; scale 0 is unsteered."""

    direction: str
    scale: float
    outcome: float
    """Mean over the prompts, with its 95 % interval over prompts."""
    low: float
    high: float
    fluency: Fluency
    problem: str
    """Why the replies do not count as fluent; '' where they do."""
    example: str
    """The first prompt's first reply."""

    @property
    def fluent(self) -> bool:
        """Whether it counts as evidence."""
        return not self.problem

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "direction": self.direction,
            "scale": self.scale,
            "outcome": self.outcome,
            "ci_low": self.low,
            "ci_high": self.high,
            "nll_per_token": self.fluency.nll,
            "repetition": self.fluency.repetition,
            "empty": self.fluency.empty,
            "fluent": self.fluent,
            "problem": self.problem,
            "example": self.example,
        }


@dataclass(frozen=True)
class DoseResponse:
    """Outcome and fluency of every direction at every scale."""

    site: Site
    unit: float
    """Length of what is added at scale 1, in the activations' units."""
    scales: tuple[float, ...]
    unsteered: Dose
    """Scale 0; with ``OwnWords`` measured by the words of the effect's largest scale."""
    doses: tuple[Dose, ...]
    """The effect's first, then each control's, by scale."""
    verdict: Verdict
    """See ``marple.tools.steering.verdict``."""
    own_words: Mapping[str, tuple[str, ...]]
    """With ``OwnWords``: the n-grams that each direction brought at positive and at negative scales."""
    margin: float
    """Allowed rise of the negative log-likelihood, nats per token."""
    cost: Cost

    def of(self, direction: str) -> list[Dose]:
        """The doses of a direction, by scale."""
        return sorted((dose for dose in self.doses if dose.direction == direction), key=lambda dose: dose.scale)

    @property
    def directions(self) -> list[str]:
        """Their names, the effect first."""
        return list(dict.fromkeys(dose.direction for dose in self.doses))
