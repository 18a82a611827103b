"""What the surface of the texts already tells: words, a single word, length."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["Vocabulary", "length_features", "single_word_scores"]

_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]")
_MOST_WORDS = 5000


class Vocabulary:
    """The words of a set of texts, lower case, the most frequent first.

    Args:
        texts: those that define it.
        least: words in fewer texts are left out.
    """

    def __init__(self, texts: Sequence[str], *, least: int = 2) -> None:
        counts = Counter(word for text in texts for word in set(_words(text)))
        frequent = sorted((word for word in counts if counts[word] >= least), key=lambda word: (-counts[word], word))
        self.words = frequent[:_MOST_WORDS]
        self._place = {word: at for at, word in enumerate(self.words)}

    def counts(self, texts: Sequence[str]) -> Tensor:
        """How often each text has each word, ``(text, word)``, with one column of zeros if there is no word."""
        table = torch.zeros(len(texts), max(1, len(self.words)))
        for row, text in enumerate(texts):
            for word, count in Counter(_words(text)).items():
                if word in self._place:
                    table[row, self._place[word]] = count
        return table


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def length_features(lengths: Sequence[int]) -> Tensor:
    """Number of tokens and its logarithm, ``(text, 2)``."""
    tokens = torch.tensor(lengths, dtype=torch.float32)
    return torch.stack([tokens, tokens.clamp(min=1).log()], dim=1)


def single_word_scores(
    counts: Tensor, labels: NDArray[np.bool_], fold: NDArray[np.int64], words: Sequence[str]
) -> tuple[NDArray[np.float64], str]:
    """Held-out scores of the rule "has this word", the word chosen on the other folds.

    Args:
        counts: ``(text, word)``.
        labels: ``(text,)``.
        fold: of each text.
        words: of the columns.

    Returns:
        A score per text, and the word that is chosen when all texts are used ('' if there are no words).
    """
    present = counts.numpy() > 0
    scores = np.zeros(len(labels))
    for at in np.unique(fold):
        rest = fold != at
        column, sign = _best_column(present[rest], labels[rest])
        scores[~rest] = sign * present[~rest, column]
    column, _ = _best_column(present, labels)
    return scores, words[column] if words else ""


def _best_column(present: NDArray[np.bool_], labels: NDArray[np.bool_]) -> tuple[int, float]:
    difference = present[labels].mean(axis=0) - present[~labels].mean(axis=0)
    column = int(np.abs(difference).argmax())
    return column, float(np.sign(difference[column]) or 1.0)
