"""What every group of rows is given."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.models import Model, Work

__all__ = ["Plan"]


@dataclass(frozen=True)
class Plan:
    """The model, how much to ask of it, how often, and whether other libraries are asked too."""

    model: Model
    work: Work
    rounds: int
    peers: bool = True

    def rounds_of(self, share: float) -> int:
        """Rounds for an operation that takes long or short: a share of those wanted, at least one."""
        return max(1, round(self.rounds * share))
