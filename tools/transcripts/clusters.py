"""Groups of points: k-means, how well the groups stand apart, and the words that tell them apart."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marple.tools.calls import check_cancelled
from marple.tools.ngrams import is_filler
from marple.tools.statistics import log_odds
from marple.tools.transcripts.corpus import words_in

__all__ = ["Clustering", "cluster", "distinguishing_words", "shuffled_silhouette", "silhouette"]

_Array = NDArray[np.float32]
_RESTARTS = 4
_ROUNDS = 60
_SILHOUETTE_ROWS = 1000
_PRIOR_STRENGTH = 5.0
_LEAST = 3


@dataclass(frozen=True)
class Clustering:
    """Which group each point is in."""

    labels: NDArray[np.int64]
    """``(point,)``, groups numbered by size, the largest 0."""
    centres: _Array
    """``(group, dimension)``."""
    silhouette: float

    def typical(self, points: _Array, group: int, count: int) -> list[int]:
        """The members nearest to a group's centre."""
        members = np.flatnonzero(self.labels == group)
        distance = ((points[members] - self.centres[group]) ** 2).sum(axis=1)
        return [int(members[at]) for at in np.argsort(distance, kind="stable")[:count]]


def cluster(points: _Array, groups: Sequence[int], *, seed: int) -> Clustering:
    """K-means (Lloyd 1982) from k-means++ starts (Arthur & Vassilvitskii 2007), for the best of several numbers.

    Args:
        points: ``(point, dimension)``.
        groups: numbers of groups to try; the one with the highest silhouette is taken.
        seed: of the starts.
    """
    generator = np.random.default_rng(seed)
    tried = []
    for k in groups:
        labels, centres = min((_lloyd(points, k, generator) for _ in range(_RESTARTS)), key=lambda run: run[2])[:2]
        tried.append(Clustering(labels, centres, silhouette(points, labels, seed=seed)))
    best = max(tried, key=lambda made: made.silhouette)
    order = np.argsort(-np.bincount(best.labels, minlength=len(best.centres)), kind="stable")
    rank = np.argsort(order, kind="stable")
    return Clustering(rank[best.labels], best.centres[order], best.silhouette)


def silhouette(points: _Array, labels: NDArray[np.int64], *, seed: int) -> float:
    """Mean silhouette width (Rousseeuw 1987), on at most 1,000 points: 1 well apart, 0 none, below 0 misplaced."""
    chosen = np.arange(len(points))
    if len(chosen) > _SILHOUETTE_ROWS:
        chosen = np.sort(np.random.default_rng(seed).choice(len(points), _SILHOUETTE_ROWS, replace=False))
    some, named = points[chosen].astype(np.float64), labels[chosen]
    groups, named = np.unique(named, return_inverse=True)
    if len(groups) < 2:
        return 0.0
    squares = (some**2).sum(axis=1)
    distance = np.sqrt(np.maximum(squares[:, None] + squares[None, :] - 2 * some @ some.T, 0))
    member = np.eye(len(groups))[named]
    sums, sizes = distance @ member, member.sum(axis=0)
    rows = np.arange(len(named))
    inner = sums[rows, named] / np.maximum(sizes[named] - 1, 1)
    means = sums / sizes
    means[rows, named] = np.inf
    outer = means.min(axis=1)
    widths = (outer - inner) / np.maximum(np.maximum(inner, outer), 1e-12)
    return float(np.where(sizes[named] > 1, widths, 0.0).mean())


def shuffled_silhouette(points: _Array, groups: int, *, seed: int) -> float:
    """The silhouette that as many groups reach where there are none: every dimension shuffled by itself."""
    shuffled = np.random.default_rng(seed).permuted(points, axis=0)
    return cluster(np.asarray(shuffled, dtype=np.float32), [groups], seed=seed).silhouette


def distinguishing_words(
    texts: Iterable[str], labels: NDArray[np.int64], *, most: int = 8
) -> list[list[tuple[str, float]]]:
    """For each group, the words said in more of its texts than in the others': weighted log-odds (Monroe et al. 2008).

    Returns:
        Words with their z, the largest first; function words are left out.
    """
    sizes = np.bincount(labels)
    counts = [Counter[str]() for _ in sizes]
    for text, label in zip(texts, labels.tolist(), strict=True):
        counts[label].update(set(words_in(text)))
    total = sum(counts, Counter[str]())
    names = sorted(word for word, count in total.items() if count >= _LEAST and not is_filler(word))
    if not names:
        return [[] for _ in sizes]
    whole = np.array([total[name] for name in names], dtype=np.float64)
    found = []
    for group, size in zip(counts, sizes.tolist(), strict=True):
        inside = np.array([group[name] for name in names], dtype=np.float64)
        rate = (whole + 0.5) / (sizes.sum() + 1)
        odds = log_odds(
            inside, whole - inside, first_n=size, second_n=sizes.sum() - size, rate=rate, strength=_PRIOR_STRENGTH
        )
        order = np.argsort(-odds.z, kind="stable")[:most]
        found.append([(names[at], float(odds.z[at])) for at in order if odds.z[at] > 0])
    return found


def _lloyd(points: _Array, groups: int, generator: np.random.Generator) -> tuple[NDArray[np.int64], _Array, float]:
    centres = _starts(points, groups, generator)
    labels = np.full(len(points), -1)
    for _ in range(_ROUNDS):
        check_cancelled()
        distance = _squared(points, centres)
        again = distance.argmin(axis=1)
        if np.array_equal(again, labels):
            break
        labels = again
        for group in range(groups):
            members = labels == group
            # An empty group starts again at the point that is worst off.
            centres[group] = points[members].mean(axis=0) if members.any() else points[distance.min(axis=1).argmax()]
    distance = _squared(points, centres)
    labels = distance.argmin(axis=1)
    return labels, centres, float(distance.min(axis=1).sum())


def _starts(points: _Array, groups: int, generator: np.random.Generator) -> _Array:
    chosen = [int(generator.integers(len(points)))]
    nearest = _squared(points, points[chosen])[:, 0]
    for _ in range(groups - 1):
        weights = nearest.astype(np.float64)
        total = weights.sum()
        chance = weights / total if total > 0 else np.full(len(points), 1 / len(points))
        chosen.append(int(generator.choice(len(points), p=chance)))
        nearest = np.minimum(nearest, _squared(points, points[chosen[-1:]])[:, 0])
    return points[chosen].copy()


def _squared(points: _Array, centres: _Array) -> _Array:
    products = points @ centres.T
    return np.asarray(
        np.maximum((points**2).sum(axis=1)[:, None] + (centres**2).sum(axis=1) - 2 * products, 0), dtype=np.float32
    )
