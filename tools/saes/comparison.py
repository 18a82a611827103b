"""Which features differ between two sets of prompts, or between two models on the same prompts.

The unit is the prompt. The score is a moderated t: the difference of means over its standard error plus a constant, so
that a feature that hardly ever fires is not carried by a tiny spread (Tusher, Tibshirani & Chu 2001). The null shuffles
labels (two sets) or flips signs (pairs); its largest score over all features bounds the family-wise error (Westfall &
Young 1993), and its pooled scores give false-discovery rates (Benjamini & Hochberg 1995).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marple.errors import ToolError
from marple.tools.statistics import benjamini_hochberg

__all__ = ["LEAST_PAIRS", "LEAST_PROMPTS", "Comparison", "compare_pairs", "compare_sets"]

LEAST_PAIRS = 6
"""Fewer pairs of prompts have too few sign flips for any score to stand out of them."""
LEAST_PROMPTS = 4
"""The same for each of two sets."""
_SHUFFLES = 1000
_BLOCK = 50

_Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class Comparison:
    """Every feature's difference, arrays of shape ``(d_sae,)``."""

    first_mean: _Matrix
    second_mean: _Matrix
    first_share: _Matrix
    """Share of prompts with any activation."""
    second_share: _Matrix
    score: _Matrix
    """Moderated t of first minus second."""
    effect: _Matrix
    """Cohen's d: the difference in units of the prompts' spread; 0 where there is none."""
    q: _Matrix
    """Adjusted for false discoveries over all features that are active at all."""
    p: _Matrix
    """Family-wise: share of shuffles whose largest score reaches this one."""
    threshold: float
    """95th percentile of the largest score of each shuffle."""
    replicated: NDArray[np.bool_]
    """Both halves of the prompts, taken alone, have a difference of the same sign and half the size at least."""
    shuffles: int

    @functools.cached_property
    def found(self) -> NDArray[np.bool_]:
        """Family-wise p and q at most 0.05."""
        return (self.p <= 0.05) & (self.q <= 0.05)

    @functools.cached_property
    def order(self) -> NDArray[np.int64]:
        """Features by falling score, those that differ first."""
        return np.argsort(-np.abs(self.score), kind="stable")


def compare_sets(first: _Matrix, second: _Matrix, *, seed: int, shuffles: int = _SHUFFLES) -> Comparison:
    """Compare two sets of prompts.

    Args:
        first: activations ``(prompt, d_sae)``, of one number per prompt.
        second: the other set's; its number of prompts may differ.
        seed: of the shuffles.
        shuffles: how many.

    Raises:
        ToolError: a set has fewer than four prompts.
    """
    for name, rows in (("first", first), ("second", second)):
        if len(rows) < LEAST_PROMPTS:
            raise ToolError(
                f"{name} has {len(rows)} prompts; at least {LEAST_PROMPTS} are needed in each set, better 20, because "
                "the prompt is the unit"
            )
    both = np.concatenate([first, second])
    random = np.random.default_rng(seed)
    count = len(first)

    def signs() -> Iterator[_Matrix]:
        for _ in range(0, shuffles, _BLOCK):
            yield np.stack([_membership(random.permutation(len(both)), count) for _ in range(_BLOCK)])

    measured = _Sets(both)
    observed = measured.scores(_membership(np.arange(len(both)), count)[None])[0]
    null = np.concatenate([np.abs(measured.scores(block)) for block in signs()])
    halves = [_difference_of_sets(first[at::2], second[at::2]) for at in (0, 1)]
    return _comparison(first, second, observed, null, halves, spread=measured.spread(count))


def compare_pairs(first: _Matrix, second: _Matrix, *, seed: int, shuffles: int = _SHUFFLES) -> Comparison:
    """Compare two measurements of the same prompts, such as those of two models.

    Args:
        first: activations ``(prompt, d_sae)``.
        second: the same prompts'.
        seed: of the sign flips.
        shuffles: how many.

    Raises:
        ToolError: there are fewer than six prompts.
    """
    if len(first) < LEAST_PAIRS:
        raise ToolError(
            f"first has {len(first)} prompts; at least {LEAST_PAIRS} are needed to compare two models, better 20, "
            "because the prompt is the unit"
        )
    difference = first - second
    random = np.random.default_rng(seed)
    measured = _Pairs(difference)
    observed = measured.scores(np.ones((1, len(first))))[0]
    blocks = (random.choice([-1.0, 1.0], size=(_BLOCK, len(first))) for _ in range(0, shuffles, _BLOCK))
    null = np.concatenate([np.abs(measured.scores(block)) for block in blocks])
    halves = [difference[at::2].mean(0) for at in (0, 1)]
    return _comparison(first, second, observed, null, halves, spread=difference.std(0, ddof=1))


def _membership(order: NDArray[np.int64], count: int) -> _Matrix:
    """1 for prompts of the first set, 0 for the others, when the first ``count`` of ``order`` are the first set."""
    row = np.zeros(len(order))
    row[order[:count]] = 1.0
    return row


class _Sets:
    """Moderated t of two sets under any labelling, by sums and sums of squares."""

    def __init__(self, values: _Matrix) -> None:
        # Centred, so that sums of squares do not cancel.
        self._values = values - values.mean(0)
        self._squares = self._values**2
        self._total, self._total_squares = self._values.sum(0), self._squares.sum(0)
        self._constant: float | None = None

    def scores(self, members: _Matrix) -> _Matrix:
        """Of labellings ``(labelling, prompt)``; shape ``(labelling, d_sae)``."""
        n1 = members.sum(1, keepdims=True)
        n2 = members.shape[1] - n1
        sum1, square1 = members @ self._values, members @ self._squares
        mean1, mean2 = sum1 / n1, (self._total - sum1) / n2
        within = square1 - n1 * mean1**2 + (self._total_squares - square1) - n2 * mean2**2
        error = np.sqrt(np.maximum(within, 0) / (n1 + n2 - 2) * (1 / n1 + 1 / n2))
        return _moderated(mean1 - mean2, error, self._constant_of(error))

    def spread(self, count: int) -> _Matrix:
        """Pooled standard deviation within the sets, ``(d_sae,)``."""
        parts = (self._values[:count], self._values[count:])
        squares = sum(((part - part.mean(0)) ** 2).sum(0) for part in parts)
        return np.sqrt(np.asarray(squares) / (len(self._values) - 2))

    def _constant_of(self, error: _Matrix) -> float:
        if self._constant is None:
            self._constant = _typical(error[0])
        return self._constant


class _Pairs:
    """Moderated t of paired differences under any signs."""

    def __init__(self, difference: _Matrix) -> None:
        self._difference = difference
        self._squares = (difference**2).sum(0)
        self._constant: float | None = None

    def scores(self, signs: _Matrix) -> _Matrix:
        """Of signs ``(flip, prompt)``; shape ``(flip, d_sae)``."""
        n = signs.shape[1]
        mean = signs @ self._difference / n
        error = np.sqrt(np.maximum(self._squares - n * mean**2, 0) / (n - 1) / n)
        if self._constant is None:
            self._constant = _typical(error[0])
        return _moderated(mean, error, self._constant)


def _typical(error: _Matrix) -> float:
    positive = error[error > 1e-12]
    return float(np.median(positive)) if len(positive) else 1.0


def _moderated(difference: _Matrix, error: _Matrix, constant: float) -> _Matrix:
    return np.asarray(difference / (error + constant), dtype=np.float64)


def _difference_of_sets(first: _Matrix, second: _Matrix) -> _Matrix:
    return np.asarray(first.mean(0) - second.mean(0))


def _comparison(
    first: _Matrix, second: _Matrix, score: _Matrix, null: _Matrix, halves: list[_Matrix], *, spread: _Matrix
) -> Comparison:
    difference = first.mean(0) - second.mean(0)
    largest = np.sort(null.max(1))
    shuffles = len(null)
    reached = shuffles - np.searchsorted(largest, np.abs(score) - 1e-12)
    alive = (first > 0).any(0) | (second > 0).any(0)
    q = np.ones(len(score))
    if alive.any():
        pooled = np.sort(null[:, alive].ravel())
        above = len(pooled) - np.searchsorted(pooled, np.abs(score[alive]) - 1e-12)
        q[alive] = benjamini_hochberg((above + 1) / (len(pooled) + 1))
    same = [np.sign(half) == np.sign(difference) for half in halves]
    large = [np.abs(half) >= np.abs(difference) / 2 for half in halves]
    return Comparison(
        first_mean=first.mean(0),
        second_mean=second.mean(0),
        first_share=(first > 0).mean(0),
        second_share=(second > 0).mean(0),
        score=score,
        effect=np.where(spread > 1e-12, difference / np.maximum(spread, 1e-12), 0.0),
        q=q,
        p=np.where(alive, (reached + 1) / (shuffles + 1), 1.0),
        threshold=float(largest[min(shuffles - 1, math.ceil(0.95 * shuffles) - 1)]),
        replicated=(difference != 0) & same[0] & same[1] & large[0] & large[1],
        shuffles=shuffles,
    )
