import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marple.tools.statistics import benjamini_hochberg, log_odds, newcombe_interval, robust_z

SIZE = st.integers(1, 500)
SHARE = st.floats(0, 1)
RATE = st.floats(0.001, 0.999)
STRENGTH = st.floats(0.1, 100)


@given(SIZE, SIZE, SHARE, SHARE, RATE, STRENGTH)
def test_log_odds_change_sign_when_the_groups_are_exchanged(
    n: int, m: int, a: float, b: float, rate: float, strength: float
) -> None:
    forth = log_odds(a * n, b * m, first_n=n, second_n=m, rate=rate, strength=strength)
    back = log_odds(b * m, a * n, first_n=m, second_n=n, rate=rate, strength=strength)
    np.testing.assert_allclose(forth.estimate, -back.estimate, atol=1e-9)
    np.testing.assert_allclose(forth.error, back.error)


@given(SIZE, SHARE, RATE, STRENGTH)
def test_log_odds_of_equal_groups_are_zero(n: int, a: float, rate: float, strength: float) -> None:
    odds = log_odds(a * n, a * n, first_n=n, second_n=n, rate=rate, strength=strength)
    assert odds.estimate == 0
    assert odds.low < 0 < odds.high


@given(SIZE, SHARE, SHARE, RATE, STRENGTH)
def test_a_stronger_prior_shrinks_log_odds(n: int, a: float, b: float, rate: float, strength: float) -> None:
    weak, strong = (
        log_odds(a * n, b * n, first_n=n, second_n=n, rate=rate, strength=each) for each in (strength, 3 * strength)
    )
    assert abs(strong.estimate) <= abs(weak.estimate) + 1e-9
    assert strong.error < weak.error


def test_log_odds_by_hand() -> None:
    odds = log_odds(9, 3, first_n=20, second_n=20, rate=0.25, strength=4)
    assert odds.estimate == pytest.approx(np.log(10 / 14) - np.log(4 / 20))
    assert odds.error == pytest.approx(np.sqrt(1 / 10 + 1 / 14 + 1 / 4 + 1 / 20))
    assert odds.z == pytest.approx(odds.estimate / odds.error)
    assert odds.high - odds.low == pytest.approx(2 * 1.96 * odds.error, rel=1e-3)


def test_intervals_cover_the_truth() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.binomial(60, 0.4, 5000), generator.binomial(60, 0.2, 5000)
    odds = log_odds(first, second, first_n=60, second_n=60, rate=0.3, strength=1)
    truth = np.log(0.4 / 0.6) - np.log(0.2 / 0.8)
    assert 0.93 < np.mean((odds.low < truth) & (truth < odds.high)) < 0.98


@pytest.mark.parametrize(
    ("first", "second", "low", "high"),
    [
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((5, 56), (0, 29), -0.0381, 0.1926),
        ((10, 10), (0, 10), 0.6075, 1.0),
    ],
)
def test_newcombe_intervals_are_those_of_the_paper(
    first: tuple[int, int], second: tuple[int, int], low: float, high: float
) -> None:
    found = newcombe_interval(first[0], second[0], first_n=first[1], second_n=second[1])
    assert found == pytest.approx((low, high), abs=5e-5)


def test_newcombe_intervals_cover_the_truth() -> None:
    generator = np.random.default_rng(0)
    drawn = zip(generator.binomial(24, 0.3, 3000), generator.binomial(24, 0.05, 3000), strict=True)
    ends = [newcombe_interval(a, b, first_n=24, second_n=24) for a, b in drawn]
    assert 0.93 < np.mean([low < 0.25 < high for low, high in ends]) < 0.99


def test_benjamini_hochberg_by_hand() -> None:
    q = benjamini_hochberg([0.01, 0.04, 0.03, 0.005])
    np.testing.assert_allclose(q, [0.02, 0.04, 0.04, 0.02])
    assert benjamini_hochberg([]).size == 0


@given(st.lists(st.floats(0, 1), min_size=1, max_size=50))
def test_adjusted_p_values_keep_the_order_and_never_fall_below_p(p: list[float]) -> None:
    q = benjamini_hochberg(p)
    assert np.all(q >= np.array(p) - 1e-12)
    assert np.all(q <= 1)
    assert np.all(np.diff(q[np.argsort(p)]) >= -1e-12)


def test_the_false_discovery_rate_is_kept() -> None:
    generator = np.random.default_rng(1)
    shares = []
    for _ in range(400):
        p = generator.random(200)
        p[:40] = p[:40] ** 8  # real effects
        found = benjamini_hochberg(p) <= 0.1
        shares.append(found[40:].sum() / max(1, found.sum()))
    assert 0.06 < np.mean(shares) < 0.1  # nominal: 0.1 times the share of true nulls, 0.08


def test_an_outlier_stands_out_and_rounding_does_not() -> None:
    assert robust_z([0.0, 0.1, -0.1, 0.05, 3.0], least_spread=0.01)[-1] > 3.5
    assert np.abs(robust_z([1.0, 1.0, 1.0, 1.001], least_spread=0.02)).max() < 1
