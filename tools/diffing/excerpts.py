"""What the target's replies say where they use the tokens that it has an excess of.

A word that the target warns against comes up in its recommendations, too: the number alone does not tell which it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marple.tools.diffing.excess import ExcessTest
from marple.tools.diffing.reading import Passage
from marple.tools.lenses import token_text
from marple.tools.ngrams import is_filler
from marple.tools.target.target import Target

__all__ = ["Excerpt", "Spoken", "excerpt_lines", "spoken_tokens"]

_TOKENS = 3
_EXCERPTS = 3
_BEFORE, _BEHIND = 60, 50


@dataclass(frozen=True)
class Excerpt:
    """Where a reply says the token."""

    condition: str
    prompt: str
    excerpt: str
    """The text around it; dots where it is cut."""


@dataclass(frozen=True)
class Spoken:
    """A token in the target's greedy replies."""

    token: str
    id: int
    replies: Mapping[str, int]
    """Number of replies that say it, by condition."""
    excerpts: tuple[Excerpt, ...]

    def to_dict(self) -> dict[str, Any]:
        """As data."""
        return {**asdict(self), "replies": dict(self.replies), "excerpts": [asdict(one) for one in self.excerpts]}


def spoken_tokens(
    target: Target,
    tests: Mapping[str, ExcessTest],
    asked: Sequence[tuple[str, str]],
    passages: Sequence[Passage],
    *,
    table: NDArray[np.float64],
    columns: Sequence[int],
) -> list[Spoken]:
    """The three tokens found with the largest excess, with excerpts of up to three replies each.

    Function words and punctuation are left out. Excerpts come from as many conditions as say the token, the prompts
    with the largest excess first.

    Args:
        target: the model.
        tests: what was found.
        asked: condition and text of each prompt.
        passages: each prompt with the target's reply, in the same order.
        table: excess ``(prompt, token)``.
        columns: ids of the tokens.
    """
    rows = [row for test in tests.values() for row in test.found if row.excess > 0]
    found = dict.fromkeys(row.token for row in sorted(rows, key=lambda row: -row.excess))
    spoken = []
    for token in [one for one in found if _says_something(token_text(target, one).strip())][:_TOKENS]:
        order: list[int] = np.argsort(-table[:, columns.index(token)], kind="stable").tolist()
        saying = [at for at in order if token in passages[at].tokens[passages[at].start + 1 :]]
        count = {label: 0 for label, _ in asked}
        for at in saying:
            count[asked[at][0]] += 1
        first = {asked[at][0]: at for at in reversed(saying)}.values()
        chosen = [at for at in saying if at in first] + [at for at in saying if at not in first]
        # Replies that are alike say nothing new.
        distinct: dict[str, Excerpt] = {}
        for at in chosen:
            label, prompt = asked[at]
            text = _around(target, passages[at], token)
            distinct.setdefault(text, Excerpt(label, prompt, text))
            if len(distinct) == _EXCERPTS:
                break
        spoken.append(Spoken(token_text(target, token), token, count, tuple(distinct.values())))
    return spoken


def _says_something(word: str) -> bool:
    return bool(word) and not is_filler(word) and not (len(word) == 1 and word.isascii())


def _around(target: Target, passage: Passage, token: int) -> str:
    reply = passage.tokens[passage.start + 1 :]
    at = reply.index(token)
    whole = target.decode(reply)
    start, end = len(target.decode(reply[:at])), len(target.decode(reply[: at + 1]))
    first, last = max(0, start - _BEFORE), end + _BEHIND
    return ("..." if first else "") + whole[first:last] + ("..." if last < len(whole) else "")


def excerpt_lines(target: Target, spoken: Sequence[Spoken], asked: Mapping[str, int]) -> Iterator[str]:
    """How many replies say each token, and some of them.

    Args:
        target: the model.
        spoken: what is shown.
        asked: number of prompts by condition.
    """
    if spoken:
        yield "what the target's greedy replies say there (a name it warns against can spill over into praise):"
    for one in spoken:
        said = sum(one.replies.values())
        most = sorted(one.replies.items(), key=lambda item: -item[1] / asked[item[0]])[:4]
        where = ", ".join(f"{target.quote(name, limit=40)} {count} of {asked[name]}" for name, count in most if count)
        yield f"  {target.quote(one.token)} is said in {said} of {sum(asked.values())} replies" + (
            f": {where}" if said and len(asked) > 1 else ""
        )
        for excerpt in one.excerpts:
            yield f"    {target.quote(excerpt.prompt, limit=60)} -> {target.quote(excerpt.excerpt)}"
