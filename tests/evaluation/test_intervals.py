"""Intervals over organisms: the same as other libraries compute, and right about as often as they say."""

from __future__ import annotations

import numpy as np
import pytest
import statsmodels.api as sm  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import bootstrap  # type: ignore[import-untyped]
from statsmodels.stats.proportion import proportion_confint  # type: ignore[import-untyped]

from marple.agent.evaluation.intervals import average, covariance, difference, mean_interval, share_interval


def clusters(seed: int, organisms: int, epochs: int = 3) -> tuple[list[float], list[str]]:
    rng = np.random.default_rng(seed)
    means = rng.normal(0, 1, organisms)
    sizes = rng.integers(1, epochs + 1, organisms)
    names = [f"o{at}" for at in range(organisms) for _ in range(sizes[at])]
    values = [float(mean + rng.normal(0, 0.5)) for mean, size in zip(means, sizes, strict=True) for _ in range(size)]
    return values, names


@pytest.mark.parametrize("organisms", [2, 7, 25])
def test_a_mean_has_the_cluster_robust_interval_of_statsmodels(organisms: int) -> None:
    values, names = clusters(organisms, organisms)
    codes = np.unique(names, return_inverse=True)[1]
    fit = sm.OLS(values, np.ones(len(values))).fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    found = mean_interval(values, names)
    assert (found.interval.low, found.interval.high) == pytest.approx(tuple(fit.conf_int(0.05)[0]))
    assert found.interval.df == organisms - 1
    assert found.variance == pytest.approx(float(fit.cov_params()[0, 0]))


def test_two_means_that_share_organisms_have_the_covariance_of_statsmodels() -> None:
    first, names = clusters(3, 12)
    second, others = clusters(4, 9)
    values, groups = [*first, *second], [*names, *others]  # o0 to o8 are in both
    half = [1.0] * len(first) + [0.0] * len(second)
    codes = np.unique(groups, return_inverse=True)[1]
    design = np.column_stack([half, 1 - np.asarray(half)])
    fit = sm.OLS(values, design).fit(cov_type="cluster", cov_kwds={"groups": codes})
    # statsmodels widens by (N - 1) / (N - 2) for the second mean, and takes all 12 organisms for each.
    factor = (len(values) - 1) / (len(values) - 2)
    found = covariance(mean_interval(first, names), mean_interval(second, others))
    assert found * factor == pytest.approx(float(fit.cov_params()[0, 1]))


def test_a_bootstrap_over_organisms_has_nearly_the_same_standard_error() -> None:
    values, names = clusters(8, 20, epochs=1)
    drawn = bootstrap((values,), np.mean, n_resamples=4000, rng=np.random.default_rng(0)).standard_error
    assert mean_interval(values, names).variance ** 0.5 == pytest.approx(drawn, rel=0.06)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_with_one_run_an_organism_a_share_has_wilsons_interval(values: list[bool]) -> None:
    found = share_interval(values, [f"o{at}" for at in range(len(values))]).interval
    low, high = proportion_confint(sum(values), len(values), method="wilson")
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=5), min_size=2, max_size=12))
def test_runs_of_one_organism_never_make_an_interval_narrower_than_as_many_organisms_would(
    outcomes: list[list[bool]],
) -> None:
    values = [one for runs in outcomes for one in runs]
    names = [f"o{at}" for at, runs in enumerate(outcomes) for _ in runs]
    found = share_interval(values, names).interval
    apart = share_interval(values, [f"o{at}" for at in range(len(values))]).interval
    assert found.low is not None
    assert found.high is not None
    assert apart.low is not None
    assert apart.high is not None
    assert found.high - found.low >= apart.high - apart.low - 1e-9
    assert 0 <= found.low <= sum(values) / len(values) <= found.high <= 1


def test_equal_outcomes_count_once_an_organism() -> None:
    """Twelve organisms solved three times each are no more than twelve runs."""
    thrice = share_interval([1.0] * 36, [f"o{at % 12}" for at in range(36)]).interval
    once = share_interval([1.0] * 12, [f"o{at}" for at in range(12)]).interval
    assert thrice.low == pytest.approx(once.low)
    assert thrice.low == pytest.approx(0.757, abs=0.001)


@pytest.mark.parametrize("interval", [share_interval, mean_interval])
def test_a_single_organism_has_no_interval_but_a_reason(interval) -> None:
    found = interval([0.0, 1.0, 1.0], ["o1"] * 3)
    assert found.value == pytest.approx(2 / 3)
    assert (found.interval.low, found.interval.high, found.interval.why) == (None, None, "only 1 organism")


def test_a_mean_of_equal_values_has_no_interval_but_a_reason() -> None:
    found = mean_interval([0.1 + 0.2, 0.3, 0.3], ["a", "b", "c"]).interval
    assert (found.low, found.why) == (None, "all organisms are equal")


def test_an_interval_of_a_mean_ends_where_means_do() -> None:
    found = mean_interval([0.0, 2.0], ["a", "b"], least=0, most=2).interval
    assert (found.low, found.high) == (0, 2)


def test_a_mean_of_shares_needs_both_intervals() -> None:
    one, other = share_interval([1.0, 0.0], ["a", "b"]), share_interval([1.0, 1.0], ["c", "c"])
    found = average(one, other, names=("solved", "cleared"))
    assert found.value == 0.75
    assert found.interval.low is None
    assert found.interval.why == "cleared: only 1 organism"


def test_what_makes_an_organism_hard_for_both_does_not_widen_their_difference() -> None:
    names = [f"o{at}" for at in range(20)]
    hard = [float(at % 2) for at in range(20)]
    other = [float(at % 2 if at > 1 else 1) for at in range(20)]
    together = difference(share_interval(hard, names), share_interval(other, names))
    apart = difference(share_interval(hard, names), share_interval(other, [f"p{at}" for at in range(20)]))
    assert together.low is not None
    assert together.high is not None
    assert apart.low is not None
    assert apart.high is not None
    assert together.high - together.low < 0.5 * (apart.high - apart.low)
