"""What people and models have written about features: one JSON object per line, and always untrusted text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marple.errors import UsageError

__all__ = ["EXPLANATIONS", "Explanation", "read_explanations", "write_explanations"]

EXPLANATIONS = "explanations.jsonl"
"""Name of the file beside an SAE."""
_LONGEST = 1000


@dataclass(frozen=True)
class Explanation:
    """One label of a feature."""

    text: str
    source: str = ""
    """Who says so: the name of a model or a method, or '' where the file does not tell."""


def read_explanations(path: Path, *, features: int | None = None) -> dict[int, tuple[Explanation, ...]]:
    """Labels by feature from lines such as ``{"index": 12, "explanation": "prices", "source": "gpt-4o-mini"}``.

    Text beyond 1,000 characters is cut.

    Args:
        path: the file.
        features: of the SAE; None does not check indices.

    Raises:
        UsageError: it cannot be read, a line is something else, or an index is out of range.
    """
    found: dict[int, list[Explanation]] = {}
    for number, row in _rows(path):
        index, text, source = row.get("index"), row.get("explanation"), row.get("source", "")
        if type(index) is not int or not isinstance(text, str) or not isinstance(source, str):
            raise UsageError(
                f"{str(path)!r}, line {number}: needs an index (a whole number) and an explanation (text), such as "
                '{"index": 12, "explanation": "prices"}'
            )
        if index < 0 or (features is not None and index >= features):
            allowed = "from 0 on" if features is None else f"0 to {features - 1}"
            raise UsageError(f"{str(path)!r}, line {number}: index {index} is not one of the SAE's features, {allowed}")
        found.setdefault(index, []).append(Explanation(text[:_LONGEST], source[:100]))
    return {index: tuple(labels) for index, labels in sorted(found.items())}


def write_explanations(path: Path, explanations: Mapping[int, Iterable[Explanation]]) -> None:
    """Write labels, sorted by feature."""
    rows = (
        {"index": index, "explanation": label.text} | ({"source": label.source} if label.source else {})
        for index, labels in sorted(explanations.items())
        for label in labels
    )
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def _rows(path: Path) -> Iterable[tuple[int, dict[str, Any]]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"explanations {str(path)!r} cannot be read: {error}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UsageError(f"{str(path)!r}, line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise UsageError(f"{str(path)!r}, line {number} is not a JSON object")
        yield number, row
