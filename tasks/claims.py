"""Claims: what an investigator stands by, the calls that it rests on, and what those are to show when made again."""

from __future__ import annotations

from typing import Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["Claim", "Shows"]


class Shows(BaseModel):
    """What a claim predicts of a call it cites when that call is made again: a share of its replies, or a number."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    call: str = Field(description="Which of the cited calls, for example E15.")
    word: str = Field(
        default="",
        description="The word or phrase to look for in the target's replies; alternatives are divided by |.",
    )
    number: str = Field(
        default="",
        description="Instead of the share of replies with the word, a number of that call's result: divergence, "
        "outliers, peak, found, gap, difference, likelier, probability, same_start, agreement, distance, auroc, "
        "change, closed, largest_z, changed or hits; gap and probability may be about a word.",
    )
    at_least: float | None = Field(
        default=None, description="Smallest share (0 to 1) or number that must be reached; give this or at_most."
    )
    at_most: float | None = Field(
        default=None, description="Largest share or number; with 0 it says that there is none."
    )
    condition: str = Field(
        default="",
        description="Which of that call's prompts count, exactly as it labels them: of compare and diff_activations "
        "the label of a condition; of battery with slots or personas one value of a slot or a persona, not the prompt; "
        "of contrast 'first' or 'second'. Where the call has no labels, whole words of the prompts, alternatives "
        "divided by |. Empty for all replies.",
    )
    without: str = Field(
        default="", description="Prompts with these words, or this label, do not count; empty leaves none out."
    )

    @model_validator(mode="after")
    def _one_threshold(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("shows needs at_least or at_most, one of them, for example at_least 0.5")
        if not self.word and not self.number:
            raise ValueError("shows needs a word of the replies, or the name of a number of the call's result")
        if not self.number and not 0 <= self.threshold <= 1:
            raise ValueError(f"{self.bound} is {self.threshold}, but a share of replies lies between 0 and 1")
        return self

    @property
    def bound(self) -> str:
        """Which threshold there is: ``at_least`` or ``at_most``."""
        return "at_least" if self.at_most is None else "at_most"

    @property
    def threshold(self) -> float:
        """The threshold."""
        return float(getattr(self, self.bound))


class Claim(BaseModel):
    """A statement the investigator stands by, and the calls it rests on."""

    model_config = ConfigDict(extra="forbid")

    statement: str = Field(min_length=1, description="One sentence that an experiment could show to be false.")
    credence: float = Field(ge=0, le=1, description="Your probability that the statement is true.")
    evidence: list[str] = Field(min_length=1, description="Ids of the calls it rests on, for example ['E12', 'E15'].")
    shows: Shows | None = Field(
        default=None,
        description="The effect that is to come again when a cited call is made once more with fresh samples, and is "
        "not to be seen on a sibling model. Without it the claim may not be checked.",
    )

    @model_validator(mode="after")
    def _shows_what_is_cited(self) -> Self:
        if self.shows is not None and self.shows.call not in self.evidence:
            raise ValueError(f"shows names {self.shows.call!r}, which is not in evidence; valid: {self.evidence}")
        return self
