"""What a tool is: a typed function with a docstring under ``@tool``.

::

    @tool(rung=1)
    def chat(target: Target, *, seed: int, messages: list[Message], samples: int = 1) -> ToolResult:
        \"\"\"One line that the investigator reads.

        Args:
            messages: what this argument is, in one sentence.
        \"\"\"

The JSON schema comes from the signature and the docstring. ``target`` and ``seed`` are given by the worker and
never appear in the schema. A function in any module of ``marple.tools.experiments`` is found without a registry.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Artifact", "Cost", "ToolResult"]


@dataclass(frozen=True)
class Cost:
    """What a call used on the target (and on its reference)."""

    prompt_tokens: int = 0
    generated_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(
            self.prompt_tokens + other.prompt_tokens,
            self.generated_tokens + other.generated_tokens,
            self.seconds + other.seconds,
        )

    @property
    def tokens(self) -> int:
        """All tokens that went through a model."""
        return self.prompt_tokens + self.generated_tokens


@dataclass(frozen=True)
class Artifact:
    """A file a tool made: a plot (``image/png``) or a table (``text/csv``)."""

    name: str
    media_type: str
    data: bytes


@dataclass(frozen=True)
class ToolResult:
    """What a tool returns."""

    text: str
    """Short text for the investigator; strings that came out of a model are JSON-encoded in it."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The same and more, structured: JSON values only, no NaN."""
    artifacts: tuple[Artifact, ...] = ()
    controls: Mapping[str, Any] = field(default_factory=dict)
    """The controls and baselines the tool ran beside the effect, JSON values."""
    cost: Cost = Cost()
    handles: tuple[str, ...] = ()
    """Names of vectors, activations or probes kept in the worker."""
