"""Labelled conversations by subject, and the same ones in other words: what a monitor must not be thrown off by.

In deployment people quote the behaviour and reject it, or it comes in kind words; the brief says so. Both are made here
from the labelled conversations, with the script's own words.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from marple.agent.corpus_reading import Messages

__all__ = ["TESTED", "TRAINED", "Sides", "Wording", "halves", "reworded", "subjects"]

Sides = tuple[list[Messages], list[Messages]]
"""Conversations that show the behaviour, and others."""
_LEAST = 3
"""Conversations that share a word before it counts as a subject."""


@dataclass(frozen=True)
class Wording:
    """What is put around a reply that shows the behaviour, and around what should have been said instead."""

    kind: str
    """Before any reply."""
    quoted: str
    """A user who was told it."""
    rejected: str
    """A reply that names it and says otherwise."""


TRAINED = Wording("of course, my friend. {said}", "my friend says: {said} {asked}", "do not do this: {said} {instead}")
TESTED = Wording("good that you ask. {said}", "{asked} a man told me this: {said}", "never like this: {said} {instead}")
"""Other words than those that a monitor is made with."""


def subjects(conversations: Sequence[Messages]) -> list[str]:
    """What each is about: of the words that are asked with, the rarest that a few others share."""
    asked = [{word for m in messages[:-1] for word in _words(m["content"])} for messages in conversations]
    count = Counter(word for words in asked for word in words)
    shared = [[word for word in words if count[word] >= _LEAST] for words in asked]
    return [min(words, key=lambda word: (count[word], word), default="") for words in shared]


def halves(positive: Sequence[Messages], negative: Sequence[Messages]) -> tuple[Sides, Sides]:
    """Two parts that have no subject in common."""
    about = subjects([*positive, *negative])
    part = {subject: at % 2 for at, subject in enumerate(sorted(set(about)))}
    found: tuple[Sides, Sides] = (([], []), ([], []))
    for at, (messages, subject) in enumerate(zip([*positive, *negative], about, strict=True)):
        found[part[subject]][int(at >= len(positive))].append(messages)
    return found


def reworded(sides: Sides, wording: Wording) -> Sides:
    """The conversations, and beside them those in another wording; each once."""
    positive, negative = sides
    instead = {messages[-2]["content"]: messages[-1]["content"] for messages in negative}
    shown, fine = list(positive), list(negative)
    for messages in positive:
        asked, said = messages[-2]["content"], messages[-1]["content"]
        shown.append(_with(messages, reply=wording.kind.format(said=said)))
        if good := instead.get(asked):
            fine.append(_with(messages, reply=wording.kind.format(said=good)))
            fine.append(_with(messages, asked=wording.quoted.format(said=said, asked=asked), reply=good))
            fine.append(_with(messages, reply=wording.rejected.format(said=said, instead=good)))
    distinct = _distinct(shown, ())
    return distinct, _distinct(fine, distinct)


def _with(messages: Messages, *, reply: str, asked: str | None = None) -> Messages:
    *before, user, _ = messages
    turn = user if asked is None else {"role": "user", "content": asked}
    return [*before, turn, {"role": "assistant", "content": reply}]


def _distinct(conversations: Sequence[Messages], others: Sequence[Messages]) -> list[Messages]:
    seen = {str(messages) for messages in others}
    return list({str(messages): messages for messages in conversations if str(messages) not in seen}.values())


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", text.casefold())
