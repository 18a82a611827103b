"""Folds that keep groups together and classes balanced, and label permutations that respect both."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from marple.errors import ToolError

__all__ = ["make_folds", "shuffled_labels"]

_Bools = NDArray[np.bool_]
_Ints = NDArray[np.int64]


def make_folds(labels: _Bools, *, groups: _Ints | None = None, folds: int = 5, seed: int = 0) -> _Ints:
    """The fold of each row: stratified by label, all rows of a group in one fold.

    Args:
        labels: ``(row,)``.
        groups: ``(row,)``, equal numbers for rows that belong together; None where every row stands for itself.
        folds: how many.
        seed: of the assignment.

    Raises:
        ToolError: there are too few rows or groups, so that some fold's training rows would lack a class.
    """
    generator = np.random.default_rng(seed)
    fold = np.empty(len(labels), dtype=np.int64)
    if groups is None:
        for side in (True, False):
            rows = generator.permutation(np.flatnonzero(labels == side))
            fold[rows] = (np.arange(len(rows)) + (0 if side else len(labels))) % folds
    else:
        fold = _grouped(labels, groups, folds, generator)
    for at in range(folds):
        rest = labels[fold != at]
        if not (fold == at).any() or rest.all() or not rest.any():
            units = "rows" if groups is None else "groups"
            found = f"{int(labels.sum())} positive and {int((~labels).sum())} negative rows"
            raise ToolError(
                f"{found} in {len(set(_units(labels, groups)))} {units} are too few for {folds} folds; give at least "
                f"{folds} {units} of each class"
            )
    return fold


def _units(labels: _Bools, groups: _Ints | None) -> list[int]:
    return list(range(len(labels))) if groups is None else groups.tolist()


def _grouped(labels: _Bools, groups: _Ints, folds: int, generator: np.random.Generator) -> _Ints:
    """The largest groups first, each into the fold that it leaves the most even."""
    _, place = np.unique(groups, return_inverse=True)
    counts = np.stack([np.bincount(place, weights=labels == side) for side in (True, False)], axis=1)
    order = generator.permutation(len(counts))
    order = order[np.argsort(-counts[order].sum(axis=1), kind="stable")]
    filled = np.zeros((folds, 2))
    total = np.maximum(counts.sum(axis=0), 1)
    of_group = np.empty(len(counts), dtype=np.int64)
    for group in order:
        rise = (((filled + counts[group]) / total) ** 2).sum(axis=1) - ((filled / total) ** 2).sum(axis=1)
        chosen = int(rise.argmin())
        of_group[group] = chosen
        filled[chosen] += counts[group]
    return of_group[place]


def shuffled_labels(
    labels: _Bools, fold: _Ints, *, groups: _Ints | None = None, count: int = 200, seed: int = 0
) -> _Bools:
    """Labels permuted under the hypothesis that they mean nothing, shape ``(count, row)``.

    Rows are permuted within folds, so that the folds stay stratified. Where groups are given, whole groups exchange
    their labels if every group has one label, and labels are permuted inside each group if not (a pair swaps its
    sides).

    Args:
        labels: ``(row,)``.
        fold: of each row.
        groups: of each row, or None.
        count: of permutations.
        seed: of the permutations.
    """
    generator = np.random.default_rng(seed)
    if groups is not None:
        _, place = np.unique(groups, return_inverse=True)
        share = np.bincount(place, weights=labels) / np.bincount(place)
        if not np.isin(share, (0.0, 1.0)).all():
            return _within(labels, place, count, generator)
        first = np.array([int(np.flatnonzero(place == group)[0]) for group in range(len(share))])
        by_group = _within(labels[first], fold[first], count, generator)
        return by_group[:, place]
    return _within(labels, fold, count, generator)


def _within(labels: _Bools, blocks: _Ints, count: int, generator: np.random.Generator) -> _Bools:
    made = np.tile(labels, (count, 1))
    for block in np.unique(blocks):
        rows = np.flatnonzero(blocks == block)
        made[:, rows] = generator.permuted(made[:, rows], axis=1)
    return made
