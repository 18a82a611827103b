"""Text of a trace inside Markdown, where nothing of it becomes markup, a link or an image that is fetched."""

from __future__ import annotations

import re

from marple.traces.review.shown import shown

__all__ = ["fenced", "inline"]

_MARKUP = re.compile(r"([\\`*_\[\]<>#|!~&])")
_TICKS = re.compile(r"`+")


def inline(text: object) -> str:
    """``text`` on one line, every character that Markdown reads as markup escaped."""
    return _MARKUP.sub(r"\\\1", shown(text).replace("\n", " "))


def fenced(text: object) -> str:
    """``text`` as a block that is shown as it is, its fence longer than any in it."""
    visible = shown(text)
    longest = max((len(ticks) for ticks in _TICKS.findall(visible)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{visible}\n{fence}"
