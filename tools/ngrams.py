"""Words and n-grams of a reply."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["NgramTable", "ngrams"]

# Scripts without spaces go character by character; words keep inner apostrophes and hyphens.
_UNSPACED = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\u0e00-\u0e7f"
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\W{_UNSPACED}]+(?:['’-][^\W{_UNSPACED}]+)*|[^\w\s]+")
_EMPTY = "(empty reply)"


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
