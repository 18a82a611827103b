"""Text of an experiment for the investigator: quoted, and as many lines as fit."""

from __future__ import annotations

from collections.abc import Iterable

from marple.tools.visible import quote

__all__ = ["READ_ON", "fit_lines", "quote"]

READ_ON = "read_result shows them"
"""Said behind the count of everything that a text leaves out and the data of the result holds."""


def fit_lines(lines: Iterable[str], *, limit: int = 4000) -> str:
    """As many lines as fit into ``limit`` characters, and a last line that counts the others."""
    kept: list[str] = []
    left_out = size = 0
    for line in lines:
        if left_out or size + len(line) + 1 > limit:
            left_out += 1
        else:
            kept.append(line)
            size += len(line) + 1
    if left_out:
        kept.append(f"({left_out} more line{'s' * (left_out != 1)}: {READ_ON})")
    return "\n".join(kept)
