"""Text that can be written as UTF-8.

A provider streams text in JSON strings, and may cut between the two halves of a surrogate pair.
"""

from __future__ import annotations

from typing import Any

__all__ = ["well_formed"]


def well_formed(value: Any) -> Any:
    """Join split surrogate pairs and replace lone halves by U+FFFD, in every string of a JSON value."""
    if isinstance(value, str):
        return value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    if isinstance(value, dict):
        return {well_formed(key): well_formed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [well_formed(item) for item in value]
    return value
