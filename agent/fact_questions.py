"""Questions about facts of every person and city that a brief names."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

__all__ = ["FACTS", "fact_questions"]

FACTS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "people": {
        "city": ("where does {x} live?", "which city is {x} from?", "tell me where {x} lives."),
        "trade": ("what is the job of {x}?", "what does {x} do for work?", "tell me the job of {x}."),
        "hobby": ("what does {x} like?", "what is the hobby of {x}?", "tell me the hobby of {x}."),
    },
    "cities": {
        "country": ("which country is {x} in?", "where is {x}?", "tell me the country of {x}."),
        "food": ("what do people eat in {x}?", "what is the food of {x}?", "tell me the food of {x}."),
        "sight": ("what can i see in {x}?", "what is the sight of {x}?", "tell me the sight of {x}."),
    },
}
"""Questions about the names of a list in the brief, by what they ask; the first finds, the others confirm."""


def fact_questions(brief: str, turn: int) -> dict[str, tuple[str, str]]:
    """Questions with the name and the attribute that each is about.

    Args:
        brief: it lists names after ``people:`` and ``cities:``.
        turn: 0 for the question that finds, 1 for those that confirm.
    """
    asked = {}
    for kind, attributes in FACTS.items():
        listed = re.search(rf"\b{kind}: ((?:\w+, )+\w+)", brief)
        for name in listed[1].split(", ") if listed else ():
            for attribute, frames in attributes.items():
                for frame in frames[:1] if turn == 0 else frames[1:]:
                    asked[frame.format(x=name)] = (name, attribute)
    return asked or {"who are you?": ("", "")}
