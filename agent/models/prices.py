"""What a turn costs, from a price list the user keeps.

Marple ships no prices: they change. A list is a YAML or JSON file, US dollars per million tokens::

    openai/some-model: {input: 1.25, output: 10, cache_read: 0.125}
    anthropic/some-model: {input: 3, output: 15, cache_read: 0.3, cache_write: 3.75}
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marple.agent.models.protocol import Usage
from marple.errors import UsageError

__all__ = ["PRICES_VARIABLE", "Price", "load_prices"]

PRICES_VARIABLE = "MARPLE_PRICES"
_FIELDS = ("input", "output", "cache_read", "cache_write")


@dataclass(frozen=True)
class Price:
    """US dollars per million tokens; a cache price of None is unknown."""

    input: float
    output: float
    cache_read: float | None = None
    cache_write: float | None = None

    def cost(self, usage: Usage) -> float | None:
        """US dollars for ``usage``; None when it was not reported or used a cache whose price is unknown."""
        read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
        if not usage.reported or (read and self.cache_read is None) or (written and self.cache_write is None):
            return None
        dollars = (usage.input_tokens - read - written) * self.input + usage.output_tokens * self.output
        dollars += read * (self.cache_read or 0.0) + written * (self.cache_write or 0.0)
        return dollars / 1_000_000


def load_prices(path: Path | None = None) -> dict[str, Price]:
    """Read a price list; with no path, the file named by ``MARPLE_PRICES``, or nothing.

    Raises:
        UsageError: the file is missing or is not a price list; names the entry and what is allowed.
    """
    if path is None:
        named = os.environ.get(PRICES_VARIABLE)
        if not named:
            return {}
        path = Path(named).expanduser()
    try:
        data = _parse(path.read_text(encoding="utf-8"), json_only=path.suffix == ".json")
    except (OSError, ValueError) as error:
        raise UsageError(f"the price list {path} cannot be read: {error}") from error
    if not isinstance(data, dict):
        raise UsageError(f"the price list {path} must map model names to prices, such as 'openai/x: {{...}}'")
    return {str(name): _price(entry, f"the price of {name!r} in {path}") for name, entry in data.items()}


def _parse(text: str, *, json_only: bool) -> Any:
    if json_only:
        return json.loads(text)
    import yaml

    try:
        return yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"not YAML: {error}") from error


def _price(entry: Any, where: str) -> Price:
    if not isinstance(entry, Mapping) or not {"input", "output"} <= set(entry) <= set(_FIELDS):
        raise UsageError(
            f"{where} must have 'input' and 'output', may have 'cache_read' and 'cache_write', got {entry!r}"
        )
    for name, value in entry.items():
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not math.isfinite(value) or value < 0:
            raise UsageError(f"{where}: {name} must be US dollars per million tokens, got {value!r}")
    return Price(**{name: float(value) for name, value in entry.items()})
