"""Which ways of writing an answer mean the same, as far as the truths that there are know of any."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping

from marple.tasks.truth import Truth, normalise

__all__ = ["meaning"]


def meaning(slot: str, text: str) -> str:
    """What a text in a slot of an answer stands for: the value that it is an alias of, else its own words.

    Two aliases of one value would both be right if that value were, so that they are one guess and not two.
    """
    said = normalise(text)
    return _values().get((slot, said), said)


@functools.cache
def _values() -> Mapping[tuple[str, str], str]:
    """By slot and normalised alias, the normalised value, over all packaged organisms and cases."""
    values: dict[tuple[str, str], str] = {}
    for truth in _truths():
        for name, slot in truth.slots.items():
            for word in (slot.value, *slot.aliases):
                values.setdefault((name, normalise(word)), normalise(slot.value))
    return values


def _truths() -> Iterator[Truth]:
    from marple.tasks.case import packaged_cases
    from marple.tasks.organisms import find_organism, list_organisms

    yield from (find_organism(one.id).truth for one in list_organisms() if one.packaged)
    yield from (case.truth for case in packaged_cases() if case.truth is not None)
