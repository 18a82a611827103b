"""The comparison finds what was planted and, where nothing was, hardly ever anything."""

import numpy as np
import pytest
from numpy.typing import NDArray

from marple.errors import ToolError
from marple.tools.saes.comparison import compare_pairs, compare_sets

Matrix = NDArray[np.float64]


def sparse(prompts: int, features: int, seed: int, *, rate: float = 0.3) -> Matrix:
    """Activations of which most are zero."""
    random = np.random.default_rng(seed)
    return random.exponential(size=(prompts, features)) * (random.random((prompts, features)) < rate)


def test_planted_differences_between_sets_are_found_with_their_sign() -> None:
    first, second = sparse(20, 80, 1), sparse(24, 80, 2)
    first[:, 7] += 2
    second[:, 40] += 2
    found = compare_sets(first, second, seed=0)
    assert set(np.flatnonzero(found.found)) == {7, 40}
    assert found.score[7] > 0 > found.score[40]
    assert set(found.order[:2]) == {7, 40}
    assert found.replicated[7]
    assert found.first_mean[7] == pytest.approx(first[:, 7].mean())
    spread = np.sqrt((first[:, 7].var() * 20 + second[:, 7].var() * 24) / 42)
    assert found.effect[7] == pytest.approx((first[:, 7].mean() - second[:, 7].mean()) / spread)


def test_planted_differences_of_pairs_are_found_where_sets_would_hide_them() -> None:
    second = sparse(20, 80, 1)
    # The same small shift in every prompt, far below the prompts' own spread.
    first = second + np.random.default_rng(5).normal(0, 0.02, second.shape)
    first[:, 3] += 0.1
    assert list(np.flatnonzero(compare_pairs(first, second, seed=0).found)) == [3]
    assert not compare_sets(first, second, seed=0).found.any()


def test_without_a_difference_few_comparisons_find_anything() -> None:
    sets = [compare_sets(sparse(12, 60, 2 * at), sparse(12, 60, 2 * at + 1), seed=at) for at in range(40)]
    pairs = [compare_pairs(sparse(12, 60, 2 * at), sparse(12, 60, 2 * at + 1), seed=at) for at in range(40)]
    # At a family-wise error of 5 %, more than 7 of 40 is less likely than one in a thousand.
    assert sum(bool(one.found.any()) for one in sets) <= 7
    assert sum(bool(one.found.any()) for one in pairs) <= 7
    assert len({one.threshold for one in sets}) > 1


def test_without_a_difference_the_strongest_feature_has_any_p() -> None:
    for compare in (compare_sets, compare_pairs):
        strongest = [
            float(compare(sparse(12, 60, 2 * at), sparse(12, 60, 2 * at + 1), seed=at, shuffles=200).p.min())
            for at in range(60)
        ]
        # Uniform: its mean has a standard error of 0.04.
        assert 0.35 < float(np.mean(strongest)) < 0.65


def test_a_set_compared_with_itself_has_no_difference() -> None:
    first = sparse(10, 30, 0)
    for found in (compare_sets(first, first, seed=0), compare_pairs(first, first, seed=0)):
        assert not found.found.any()
        assert not found.replicated.any()
        assert np.isfinite(found.score).all()
        assert (found.p <= 1).all()


def test_features_that_never_fire_are_not_evidence() -> None:
    first, second = np.zeros((8, 5)), np.zeros((8, 5))
    first[:, 0] = 1.0
    found = compare_sets(first, second, seed=0)
    assert list(np.flatnonzero(found.found)) == [0]
    assert found.q[1:].tolist() == [1, 1, 1, 1]


def test_one_prompt_does_not_carry_a_feature() -> None:
    first, second = sparse(20, 50, 1), sparse(20, 50, 2)
    first[3, 9] = 100.0
    found = compare_sets(first, second, seed=0)
    assert not found.found[9]
    assert not found.replicated[9]


def test_too_few_prompts_are_refused() -> None:
    with pytest.raises(ToolError, match="second has 3 prompts; at least 4"):
        compare_sets(sparse(9, 5, 0), sparse(3, 5, 1), seed=0)
    with pytest.raises(ToolError, match="first has 5 prompts; at least 6"):
        compare_pairs(sparse(5, 5, 0), sparse(5, 5, 1), seed=0)
