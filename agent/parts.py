"""Parts of a call's result: the records and the replies of some prompts, whatever lies around them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Of", "label_names", "replies_of_call", "says"]

_REPLIES = ("replies", "target", "continuations")
_NOT_TARGETS = ("reference_replies", "reference", "without_edits")

Data = Mapping[str, Any]


@dataclass(frozen=True)
class Of:
    """What part of a result is read."""

    word: str = ""
    condition: str = ""
    """A label, or words of the prompts where they have none; '' for everything."""
    without: str = ""
    """Prompts with these words do not count; '' leaves none out."""

    def counts(self, record: Data) -> bool:
        """Whether a record of a result, with its prompt and label, is in this part."""
        labels = label_names(record)
        prompt = str(record.get("prompt", ""))
        if self.without and (self.without in labels or says(self.without, prompt)):
            return False
        if not self.condition or self.condition in labels:
            return True
        return not labels and says(self.condition, prompt)


def says(words: str, prompt: str) -> bool:
    """Whether a text has these words, or one of several alternatives that ``|`` divides, whole and in any case."""
    return any(
        re.search(rf"(?<!\w){re.escape(one.strip().casefold())}(?!\w)", prompt.casefold())
        for one in words.split("|")
        if one.strip()
    )


def replies_of_call(data: Any, of: Of) -> list[str]:
    """The target's replies, or the continuations of texts of its, that are in a part of a call's result."""
    return list(_replies(data, of, inside=not of.condition))


def _replies(data: Any, of: Of, *, inside: bool) -> Iterator[str]:
    if isinstance(data, list):
        for value in data:
            yield from _replies(value, of, inside=inside)
    elif isinstance(data, Mapping):
        if label_names(data) or "prompt" in data:
            inside = of.counts(data)
        for key, value in data.items():
            if key in _REPLIES and isinstance(value, list):
                yield from _texts(value) if inside else ()
            if key not in _NOT_TARGETS:
                yield from _replies(value, of, inside=inside)


def label_names(record: Data) -> list[str]:
    """The names under which a record's prompt was asked: a condition, a template's values, or a set of a contrast."""
    label = record.get("condition", record.get("set"))
    return list(label.values()) if isinstance(label, Mapping) else [label] if label else []


def _texts(replies: Sequence[Any]) -> Iterator[str]:
    for reply in replies:
        if isinstance(reply, str):
            yield reply
        elif isinstance(reply, list):
            yield from _texts(reply)
        elif isinstance(reply, Mapping) and isinstance(reply.get("text"), str):
            yield reply["text"]
