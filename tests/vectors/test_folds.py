import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marple.errors import ToolError
from marple.tools.probes.folds import make_folds, shuffled_labels

settings.load_profile("vectors")


@given(st.integers(5, 60), st.integers(5, 60), st.integers(2, 5), st.integers(0, 1000))
def test_folds_are_stratified(positive: int, negative: int, folds: int, seed: int) -> None:
    labels = np.arange(positive + negative) < positive
    fold = make_folds(labels, folds=folds, seed=seed)
    for side, total in ((labels, positive), (~labels, negative)):
        counts = np.bincount(fold[side], minlength=folds)
        assert counts.sum() == total
        assert counts.max() - counts.min() <= 1


@given(st.lists(st.integers(1, 4), min_size=30, max_size=50), st.booleans(), st.integers(0, 1000))
def test_groups_stay_together_and_folds_stay_even(sizes: list[int], mixed: bool, seed: int) -> None:
    groups = np.repeat(np.arange(len(sizes)), sizes)
    labels = np.arange(len(groups)) % 2 == 0 if mixed else groups % 2 == 0
    fold = make_folds(labels, groups=groups, seed=seed)
    for group in range(len(sizes)):
        assert len(set(fold[groups == group])) == 1
    for side in (labels, ~labels):
        share = np.bincount(fold[side], minlength=5) / side.sum()
        assert share.max() < 0.35


@given(st.integers(6, 30), st.integers(0, 1000))
def test_shuffles_keep_every_folds_balance(half: int, seed: int) -> None:
    labels = np.arange(2 * half) < half
    fold = make_folds(labels, seed=seed)
    shuffled = shuffled_labels(labels, fold, count=20, seed=seed)
    for row in shuffled:
        assert (np.bincount(fold, weights=row, minlength=5) == np.bincount(fold, weights=labels, minlength=5)).all()
    assert len(np.unique(shuffled, axis=0)) > 10


def test_shuffles_of_pairs_swap_their_sides_and_of_whole_groups_exchange_their_labels() -> None:
    pairs = np.tile(np.arange(20), 2)
    labels = np.arange(40) < 20
    fold = make_folds(labels, groups=pairs)
    for row in shuffled_labels(labels, fold, groups=pairs, count=30):
        assert (np.bincount(pairs, weights=row) == 1).all()
    blocks = np.repeat(np.arange(20), 3)
    labels = blocks < 10
    fold = make_folds(labels, groups=blocks)
    for row in shuffled_labels(labels, fold, groups=blocks, count=30):
        sums = np.bincount(blocks, weights=row)
        assert set(sums) <= {0.0, 3.0}
        assert sums.sum() == 30


def test_too_few_groups_are_refused() -> None:
    labels = np.arange(12) < 6
    with pytest.raises(ToolError, match="6 positive and 6 negative rows in 2 groups are too few for 5 folds"):
        make_folds(labels, groups=(np.arange(12) // 6))
