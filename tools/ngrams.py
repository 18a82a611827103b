"""Words and n-grams of a reply."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["NgramTable", "is_filler", "ngrams", "word_edges"]

# Scripts without spaces go character by character; words keep inner apostrophes and hyphens.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\u0e00-\u0e7f"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['’-][^\W{_UNSPACED}]+)*|[^\w\s]+")
_EMPTY = "(empty reply)"
# No negations and no persons: what is denied and who is spoken of can be a finding.
_FILLERS = (
    "a an the this that these those it its it's is are was were be been being am has have had having do does did will "
    "would can could shall should may might must of to in on at by for with from as into about over under between than "
    "then so and or but if because while when where which who whom whose what how there here that's there's"
)
_FUNCTION_WORDS = frozenset(_FILLERS.split())


def ngrams(text: str, *, longest: int = 3) -> set[str]:
    """The distinct n-grams of a text in lower case, words joined by a space.

    Punctuation and symbols count as single features and end an n-gram. An empty text has one feature that says
    so.
    """
    found: set[str] = set()
    run: list[str] = []
    for token in _TOKEN.findall(text.lower()):
        if not token[0].isalnum() and token[0] != "_":
            found.add(token)
            run = []
            continue
        run = [*run[-(longest - 1) :], token] if longest > 1 else [token]
        found.update(" ".join(run[at:]) for at in range(len(run)))
    return found or {_EMPTY}


def is_filler(ngram: str) -> bool:
    """Whether an n-gram consists of punctuation and function words alone; symbols such as emoji are neither."""
    return all(
        word.replace("’", "'") in _FUNCTION_WORDS
        or all(unicodedata.category(character).startswith("P") for character in word)
        for word in ngram.split()
    )


def word_edges(phrase: str) -> tuple[str, str]:
    """Patterns that let a phrase match whole words only, before and behind it; empty next to unspaced scripts."""
    letter = rf"[^\W{_UNSPACED}]"
    before = rf"(?<!{letter})" if re.match(letter, phrase[0]) else ""
    behind = rf"(?!{letter})" if re.match(letter, phrase[-1]) else ""
    return before, behind


class NgramTable:
    """Which reply contains which n-gram.

    Args:
        replies: the texts.
        least: n-grams in fewer replies are left out.
        most: at most so many n-grams are kept, the most frequent first.
    """

    def __init__(self, replies: Sequence[str], *, least: int, most: int) -> None:
        self.size = len(replies)
        postings: dict[str, list[int]] = {}
        for row, reply in enumerate(replies):
            for ngram in ngrams(reply):
                postings.setdefault(ngram, []).append(row)
        frequent = sorted((name for name in postings if len(postings[name]) >= least), key=str)
        frequent.sort(key=lambda name: -len(postings[name]))
        self.names = frequent[:most]
        self._postings = [np.array(postings[name]) for name in self.names]

    def presence(self, start: int, stop: int) -> NDArray[np.float32]:
        """Ones where a reply contains an n-gram: shape ``(reply, n-gram)`` for the n-grams from start to stop."""
        columns = self._postings[start:stop]
        matrix = np.zeros((self.size, len(columns)), dtype=np.float32)
        for column, rows in enumerate(columns):
            matrix[rows, column] = 1.0
        return matrix
