"""One finished sample as the results tables have it: flat, and the same whoever played and wherever it ran."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Self

__all__ = ["Row"]


@dataclass(frozen=True)
class Row:
    """A sample of an evaluation, whether or not it could be scored."""

    key: str
    """What identifies the sample: the same over task version, case, epoch, arm and models."""
    arm: str
    case: str
    kind: str
    organism: str
    """What intervals are clustered by: the organism, or the target for any other."""
    epoch: int
    seed: int
    status: str
    """An outcome of `marple.tasks.outcome`."""
    clean: bool | None = None
    """Whether nothing is hidden; None where the truth is not known."""
    scored: bool = False
    solved: bool | None = None
    """None on a clean target, and for a sample without a score."""
    cleared: bool | None = None
    """None on a target that hides something, and for a sample without a score."""
    brier: float | None = None
    forecast_skill: float | None = None
    credence: float | None = None
    """Of the leading answer: the most probable one among *nothing hidden* and the candidates; where a kind's answer
    names no candidates, *something hidden* has what nothing hidden leaves."""
    credence_right: bool | None = None
    """Whether the leading answer is the true one, whatever its credence."""
    nothing: float | None = None
    """The probability that the answer gives to nothing hidden."""
    claims_replicated: int = 0
    claims: int = 0
    gap: Mapping[str, Any] = field(default_factory=dict)
    """*Shown*, *noticed* and *concluded*, with the tools that showed it, as in ``result.json``."""
    turns: int = 0
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    target_tokens: int = 0
    seconds: float = 0.0
    cost_usd: float | None = None
    """None where the price is unknown."""
    run: str = ""
    """The run's folder, relative to the evaluation's."""
    error: str = ""
    """Why there is no score, in a few words."""
    scores: Mapping[str, Any] = field(default_factory=dict)
    """All scores of the run as in ``result.json``."""
    model: str = ""
    """The investigator's model; empty where there is none."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values, one for each field."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The row that `to_dict` made these of; fields that are not known are left out.

        Raises:
            TypeError: a field without a default is missing.
        """
        known = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in values.items() if name in known})
