"""Differences between arms: paired, tested over organisms, and adjusted for how many there are."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import permutation_test, ttest_1samp  # type: ignore[import-untyped]
from statsmodels.stats.multitest import multipletests  # type: ignore[import-untyped]

from marple.agent.evaluation.comparisons import Comparison, compare_arms, holm, sign_flip
from marple.agent.evaluation.rows import Row
from marple.agent.evaluation.statistics import kinds_with
from tests.evaluation.simulated import row, rows


def compared(samples: list[Row], arms: list[str], controls: list[str]) -> list[Comparison]:
    return compare_arms(samples, arms, controls, kinds_with(samples))


@pytest.mark.parametrize("seed", range(20))
def test_adjusted_p_values_are_those_of_statsmodels(seed: int) -> None:
    rng = np.random.default_rng(seed)
    p_values = [float(one) for one in rng.choice((0.0, 1e-6, 0.004, 0.01, 0.012, 0.03, 0.05, 0.5, 1.0), 1 + seed % 9)]
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


@pytest.mark.parametrize("seed", range(4))
def test_a_sign_flip_test_is_the_exact_permutation_test_of_scipy(seed: int) -> None:
    deltas = np.random.default_rng(seed).normal(0.4, 1, 9)

    def studentized(x, axis=-1):
        return x.mean(axis=axis) / x.std(axis=axis)

    exact = permutation_test((deltas,), studentized, permutation_type="samples", n_resamples=np.inf, vectorized=True)
    assert sign_flip([[(f"o{at}", delta) for at, delta in enumerate(deltas)]]) == pytest.approx(exact.pvalue)


def test_many_organisms_are_tested_by_draws_that_are_always_the_same() -> None:
    rng = np.random.default_rng(0)
    some = [[(f"o{at}", float(delta)) for at, delta in enumerate(rng.normal(0.3, 1, 40))]]
    assert sign_flip(some) == sign_flip(some)
    assert sign_flip(some) == pytest.approx(ttest_1samp([d for _, d in some[0]], 0).pvalue, abs=0.01)


def test_where_every_organism_differs_alike_the_p_value_is_that_of_as_many_coins() -> None:
    samples = [
        row(arm, at, clean=at >= 8, right=(arm == "mine" or at >= 8)) for arm in ("prior", "mine") for at in range(12)
    ]
    one = compared(samples, ["prior", "mine"], ["prior"])[0]
    assert (one.arm, one.against, one.estimate.mean.value) == ("mine", "prior", 0.5)
    assert one.p == pytest.approx(2 / 2**8)
    assert one.estimate.interval.low is not None
    assert 0 < one.estimate.interval.low < 0.5 < (one.estimate.interval.high or 0) < 1


def test_arms_that_did_the_same_do_not_differ() -> None:
    samples = [row(arm, at, clean=at % 3 == 0, right=at % 2 == 0) for arm in ("prior", "mine") for at in range(12)]
    one = compared(samples, ["prior", "mine"], ["prior"])[0]
    assert (one.estimate.mean.value, one.p) == (0.0, 1.0)


def test_a_single_organism_gives_neither_interval_nor_p_value() -> None:
    samples = [row(arm, 1, clean=False, right=arm == "mine", epoch=e) for arm in ("prior", "mine") for e in (1, 2, 3)]
    one = compared(samples, ["prior", "mine"], ["prior"])[0]
    assert (one.measure, one.estimate.mean.value) == ("solved", 1.0)
    assert (one.p, one.p_holm, one.estimate.interval.low) == (None, None, None)
    assert one.estimate.interval.why == "only 1 organism"


def test_only_samples_that_both_have_are_compared_and_the_others_bound_the_difference() -> None:
    """An arm that fails where it is hard is not compared on what is easy alone without that being said."""
    easy = [row(arm, at, clean=False, right=True) for arm in ("prior", "mine") for at in range(6)]
    hard = [row("prior", 9, clean=False, right=False), row("mine", 9, clean=False, right=None)]
    one = compared([*easy, *hard], ["prior", "mine"], ["prior"])[0].estimate.mean
    assert (one.n, one.n_total, one.value) == (6, 7, 0.0)
    assert one.worst == pytest.approx(-1 / 7)
    assert one.best == pytest.approx(1 / 7)


def test_families_are_adjusted_apart_and_say_what_they_are() -> None:
    found = compared(rows(), ["prior", "scripted-blackbox", "agent", "agent-no-sae"], ["prior", "scripted-blackbox"])
    named = [(one.family, one.arm, one.against) for one in found]
    assert named == [
        ("controls", "agent", "prior"),
        ("controls", "agent-no-sae", "prior"),
        ("controls", "scripted-blackbox", "prior"),
        ("controls", "agent", "scripted-blackbox"),
        ("controls", "agent-no-sae", "scripted-blackbox"),
        ("others", "agent-no-sae", "agent"),
    ]
    against = [one for one in found if one.family == "controls"]
    assert [one.p_holm for one in against] == pytest.approx(holm([one.p or 0 for one in against]))
    assert found[-1].p_holm == found[-1].p


def test_arms_that_are_alike_are_told_apart_in_one_of_twenty_evaluations() -> None:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(300):
        hard = rng.beta(1, 1, 14)
        marks = rng.random((2, 3, 14)) < hard
        deltas = [(f"o{at}", float(marks[0, e, at]) - float(marks[1, e, at])) for at in range(14) for e in range(3)]
        found.append(sign_flip([deltas[:27], deltas[27:]]))
    assert 0.02 <= np.mean([p is not None and p <= 0.05 for p in found]) <= 0.08


def test_a_case_that_one_arm_has_not_is_a_missing_pair() -> None:
    both = [row(arm, at, clean=False, right=True) for arm in ("prior", "mine") for at in range(3)]
    one = compared([*both, row("prior", 9, clean=False, right=True)], ["prior", "mine"], ["prior"])[0].estimate.mean
    assert (one.n, one.n_total) == (3, 4)


def test_an_arm_that_plays_some_cases_by_choice_is_compared_on_those_or_not_at_all() -> None:
    whole = [row("prior", at, clean=False, right=False) for at in range(6)]
    some = [row("mine", at, clean=False, right=True) for at in range(3)]
    other = [row("other", at, clean=False, right=True) for at in (4, 5)]
    rows, arms = [*whole, *some, *other], ["prior", "mine", "other"]
    found = compare_arms(rows, arms, ["prior"], kinds_with(rows), chosen=["mine", "other"])
    assert [(one.arm, one.against, one.estimate.mean.n_total) for one in found] == [
        ("mine", "prior", 3),
        ("other", "prior", 2),
    ]
    assert found[0].estimate.mean.value == 1.0


def test_gains_on_organisms_and_losses_on_clean_targets_are_weighed_by_their_means() -> None:
    """Opposite effects in the two halves are no noise: they must not hide that the mean is above 0."""
    solved = [(f"o{at}", 0.9 if at % 2 else 1.0) for at in range(8)]
    cleared = [(f"c{at}", -0.6 if at % 2 else -0.5) for at in range(8)]
    assert (sign_flip([solved, cleared]) or 1) < 0.001
    assert (sign_flip([solved, [(name, -0.95) for name, _ in cleared]]) or 0) > 0.9
