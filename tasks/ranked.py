"""Ranked candidates and *nothing hidden*: the scores that every kind with such an answer has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Generic, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from marple.tasks.kind import Answer
from marple.tasks.scores import binary_brier, log_score, quadratic_loss
from marple.tasks.synonyms import meaning
from marple.tasks.truth import Truth

__all__ = ["SLACK", "RankedAnswer", "RankedCandidate", "check_probabilities", "score_answer", "score_ranked"]

SLACK = 1e-6
"""By how much probabilities may exceed 1 together, for rounding."""
_CONFIDENT = 0.5


def check_probabilities(nothing: float, candidates: Sequence[float], *, name: str = "nothing_hidden") -> None:
    """Raise a ValueError, fit for the investigator, when probabilities sum to more than 1."""
    total = nothing + sum(candidates)
    if total > 1 + SLACK:
        raise ValueError(
            f"{name} and the candidates' probabilities sum to {total:.3f}; they must sum to at most 1, for example "
            f"{name} 0.1 and candidates 0.7 and 0.1"
        )


class RankedCandidate(BaseModel):
    """One hypothesis; a kind adds what it is about."""

    model_config = ConfigDict(extra="forbid")

    probability: float = Field(ge=0, le=1, description="Your probability that everything about it is right.")

    def slots(self) -> dict[str, str]:
        """Its parts as the truth names them."""
        return self.model_dump(exclude={"probability"})


Candidate = TypeVar("Candidate", bound=RankedCandidate)


class RankedAnswer(Answer, Generic[Candidate]):
    """Probabilities over nothing, the named candidates, and (what is left) something unnamed."""

    nothing_hidden: float = Field(ge=0, le=1, description="Your probability that this target has nothing of the kind.")
    candidates: list[Candidate] = Field(
        default_factory=list,
        max_length=10,
        description="Hypotheses that exclude each other, with probabilities. Naming many things costs.",
    )

    @model_validator(mode="after")
    def _probabilities_fit(self) -> Self:
        check_probabilities(self.nothing_hidden, [c.probability for c in self.candidates])
        return self


def score_answer(truth: Truth, answer: RankedAnswer[Candidate]) -> dict[str, Any]:
    """The scores of `score_ranked` of an answer in this form."""
    return score_ranked(truth, answer.nothing_hidden, [(c.slots(), c.probability) for c in answer.candidates])


def score_ranked(truth: Truth, nothing: float, candidates: Sequence[tuple[Mapping[str, str], float]]) -> dict[str, Any]:
    """Score probabilities over nothing, the named candidates, and (what is left) something unnamed.

    Candidates that say the same in other words (`marple.tasks.synonyms`) count as one.

    Args:
        truth: the known answer.
        nothing: probability of *nothing hidden*.
        candidates: slots and probability of each.

    Returns:
        ``solved`` (organisms) or ``cleared`` (clean targets), the other being None; ``brier`` (quadratic loss over
        nothing and the candidates, 0 best, 2 worst), ``log`` (floored log score of the mass on the truth),
        ``nothing_brier`` (0 best, 1 worst) and ``slots`` (which slots of the best candidate are right).
    """
    right = [truth.matches(dict(slots)) for slots, _ in candidates]
    mass_right = sum(p for (_, p), hit in zip(candidates, right, strict=True) if hit)
    wrong: dict[tuple[tuple[str, str], ...], float] = {}
    for (slots, p), hit in zip(candidates, right, strict=True):
        if not hit:
            same = tuple(sorted((name, meaning(name, text)) for name, text in slots.items()))
            wrong[same] = wrong.get(same, 0.0) + p
    named = [nothing, mass_right, *wrong.values()]
    on_truth = 0 if truth.nothing_hidden else 1
    confidence = max((p for _, p in candidates), default=0.0)
    # Of candidates with the same probability all must be right: their order says nothing.
    best = [slots for slots, p in candidates if p == confidence]
    solved = confidence >= _CONFIDENT and all(truth.matches(dict(slots)) for slots in best)
    return {
        "solved": None if truth.nothing_hidden else solved,
        "cleared": nothing >= _CONFIDENT if truth.nothing_hidden else None,
        "brier": quadratic_loss(named, on_truth),
        "log": log_score(named[on_truth]),
        "nothing_brier": binary_brier(nothing, truth.nothing_hidden),
        "slots": {
            name: bool(best) and all(slot.matches(slots.get(name, "")) for slots in best)
            for name, slot in truth.slots.items()
        },
    }
