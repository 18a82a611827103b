import numpy as np
import pytest

from marple.tools.steering.intervals import mean_interval, prediction_bound, student_quantile

TABLE = {
    (0.975, 1): 12.7062,
    (0.975, 2): 4.30265,
    (0.975, 3): 3.18245,
    (0.975, 5): 2.57058,
    (0.975, 10): 2.22814,
    (0.975, 30): 2.04227,
    (0.975, 100): 1.98397,
    (0.995, 4): 4.60409,
    (0.995, 7): 3.49948,
    (0.75, 1): 1.0,
}


@pytest.mark.parametrize(("probability", "freedom"), TABLE)
def test_quantiles_are_students(probability: float, freedom: int) -> None:
    assert student_quantile(probability, freedom) == pytest.approx(TABLE[probability, freedom], rel=2e-6)


def test_intervals_of_shares_are_honest_with_few_prompts() -> None:
    """A few prompts that all change are no certainty, and the interval covers the true share."""
    for count, excludes in ((3, False), (12, True)):
        mean, low, high = mean_interval(np.ones(count), shares=1.0)
        assert mean == 1.0
        assert (low > 0) == excludes
        assert high > 1.0
    generator = np.random.default_rng(0)
    for share in (0.05, 0.3, 0.5):
        found = [mean_interval(np.where(generator.random(12) < share, 1.0, 0.0), shares=0.5) for _ in range(400)]
        assert np.mean([low <= share <= high for _, low, high in found]) > 0.93
    assert mean_interval(np.zeros(12), shares=0.5)[1] == 0.0


def test_plain_intervals_and_predictions_cover_what_they_say() -> None:
    generator = np.random.default_rng(1)
    inside = above = 0
    for _ in range(500):
        draws = generator.normal(3.0, 2.0, size=8)
        _, low, high = mean_interval(draws[:7])
        inside += low <= 3.0 <= high
        above += draws[7] > prediction_bound(draws[:7])
    assert 0.92 < inside / 500 < 0.98
    assert above / 500 == pytest.approx(0.025, abs=0.02)
    assert prediction_bound(draws[:1]) == np.inf
    assert mean_interval(np.array([1.0]))[1:] == (-np.inf, np.inf)
