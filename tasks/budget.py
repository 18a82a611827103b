"""How much an investigation may use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from marple.errors import UnknownNameError, UsageError

__all__ = ["Budget"]


@dataclass(frozen=True)
class Budget:
    """Limits of one run; None means no limit."""

    turns: int | None = 40
    """Turns of the investigator: one model call, or one step of a script."""
    calls: int | None = 80
    """Experiments: tool calls that reach the target. Notebook calls are free."""
    tokens: int | None = 400_000
    """Tokens of the investigator, prompt and output together, cached ones included."""
    target_tokens: int | None = 2_000_000
    """Tokens that go through the target and its reference, prompt and generated together."""
    cost: float | None = None
    """US dollars of the investigator's model, and of a target that is an endpoint; needs known prices."""
    seconds: float | None = 3600
    """Wall time, not counting time between an interruption and a resume."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and value <= 0:
                raise UsageError(f"budget {name}={value!r} must be above 0; leave it out or say none for no limit")

    @classmethod
    def names(cls) -> list[str]:
        """The names a budget has."""
        return [f.name for f in fields(cls)]

    def overridden(self, changes: Mapping[str, object]) -> Budget:
        """The same budget with some limits changed.

        Raises:
            UnknownNameError: for a key that is not a limit.
            UsageError: for a value that is not a number above 0, or ``none``.
        """
        parsed: dict[str, int | float | None] = {}
        for key, value in changes.items():
            if key not in self.names():
                raise UnknownNameError("budget key", key, self.names())
            parsed[key] = _limit(key, value)
        return replace(self, **parsed)  # type: ignore[arg-type]

    def with_text(self, text: str | None) -> Budget:
        """The same budget changed by ``turns=40,calls=none``, as typed on a command line."""
        if not text:
            return self
        changes: dict[str, object] = {}
        for part in text.split(","):
            key, equals, value = part.partition("=")
            if not equals:
                raise UsageError(f"budget {part!r} is not KEY=VALUE; for example: --budget turns=40,calls=80")
            changes[key.strip()] = value.strip()
        return self.overridden(changes)


def _limit(key: str, value: object) -> int | float | None:
    if value is None or str(value).lower() == "none":
        return None
    try:
        number = float(str(value))
    except ValueError:
        raise UsageError(f"budget {key}={value!r} is not a number; for example: --budget {key}=40") from None
    if not 0 < number < float("inf"):
        raise UsageError(f"budget {key}={value!r} must be above 0; say {key}=none for no limit")
    whole = key not in ("cost", "seconds")
    if whole and number != int(number):
        raise UsageError(f"budget {key}={value!r} must be a whole number; for example: --budget {key}=40")
    return int(number) if whole else number
