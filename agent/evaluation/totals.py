"""What a whole evaluation may use, over all its samples; it is looked at before each sample that is started."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

from marple.errors import UnknownNameError, UsageError

__all__ = ["Spent", "TotalBudget"]


@dataclass(frozen=True)
class Spent:
    """What the samples of an evaluation have used, those that were superseded included."""

    cost: float = 0.0
    """US dollars, of what has a known price."""
    cost_known: bool = True
    """False as soon as a run's price is not known."""
    seconds: float = 0.0
    """Wall time, without the time between two commands."""
    target_tokens: int = 0


@dataclass(frozen=True)
class TotalBudget:
    """Limits of all samples together; None means no limit."""

    cost: float | None = None
    """US dollars of the investigators' models; needs known prices."""
    seconds: float | None = None
    """Wall time."""
    target_tokens: float | None = None
    """Tokens through all targets and their references."""

    @classmethod
    def names(cls) -> list[str]:
        """The names it has."""
        return [one.name for one in fields(cls)]

    @classmethod
    def of(cls, limits: Mapping[str, Any]) -> Self:
        """Limits from values as a file or a command line has them.

        Raises:
            UnknownNameError: a limit that there is not.
            UsageError: a value that is no number above 0.
        """
        for name, value in limits.items():
            if name not in cls.names():
                raise UnknownNameError("limit of an evaluation", name, cls.names())
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
                raise UsageError(f"budget {name}={value!r} is not a number above 0; for example {name}=100")
        return cls(**limits)

    @classmethod
    def of_text(cls, text: str) -> Self:
        """Limits as typed: ``cost=5,seconds=3600``.

        Raises:
            UsageError: as for `of`.
        """
        limits: dict[str, Any] = {}
        for part in text.split(","):
            name, equals, value = part.partition("=")
            if not equals:
                raise UsageError(f"budget {part!r} is not KEY=VALUE; for example: --budget cost=5,seconds=3600")
            try:
                limits[name.strip()] = float(value)
            except ValueError:
                limits[name.strip()] = value
        return cls.of(limits)

    def reached(self, spent: Spent) -> str:
        """The first limit that is reached, by name, or ''."""
        for name, limit in asdict(self).items():
            if limit is not None and getattr(spent, name) >= limit:
                return name
        return ""

    def to_dict(self) -> dict[str, float | None]:
        """JSON values."""
        return asdict(self)
