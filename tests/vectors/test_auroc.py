import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from marple.tools.probes.auroc import auroc, auroc_difference, measure_auroc

settings.load_profile("vectors")


@given(st.lists(st.tuples(st.integers(-5, 5), st.booleans()), min_size=2, max_size=40))
def test_the_area_is_that_of_scikit_learn_ties_included(rows: list[tuple[int, bool]]) -> None:
    labels = np.array([label for _, label in rows] + [True, False])
    scores = np.array([float(score) for score, _ in rows] + [0.0, 1.0])
    assert auroc(scores, labels) == pytest.approx(roc_auc_score(labels, scores))
    assert auroc(-scores, labels) == pytest.approx(1 - auroc(scores, labels))
    found = measure_auroc(scores, labels)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_delong_by_hand() -> None:
    # Structural components 1, 1/2 and 1/2, 1: both variances are 1/8, so the standard error is sqrt(1/16 + 1/16).
    labels = np.array([True, True, False, False])
    first, second = np.array([3.0, 1.0, 0.0, 2.0]), np.array([0.0, 0.0, 0.0, 0.0])
    difference, low, high = auroc_difference(first, second, labels, z=1.0)
    assert difference == pytest.approx(0.25)
    assert high - difference == pytest.approx(np.sqrt(1 / 8))
    assert difference - low == pytest.approx(np.sqrt(1 / 8))


def test_the_interval_covers_the_truth() -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2 == 0
    hits = grouped = naive = 0
    for _ in range(300):
        scores = generator.normal(size=60) + labels * 1.0
        found = measure_auroc(scores, labels)
        hits += found.low <= 0.7602 <= found.high
        # Ten copies of six rows: only an interval that knows the groups is honest.
        few = generator.normal(size=12) + (np.arange(12) % 2 == 0)
        copies, sides = np.repeat(few, 5), np.repeat(np.arange(12) % 2 == 0, 5)
        told = measure_auroc(copies, sides, groups=np.repeat(np.arange(12), 5))
        grouped += told.low <= 0.7602 <= told.high
        untold = measure_auroc(copies, sides)
        naive += untold.low <= 0.7602 <= untold.high
    assert 0.92 <= hits / 300 <= 0.99
    assert grouped / 300 >= 0.9
    assert naive / 300 < 0.8


def test_perfect_separation_of_few_rows_is_no_certainty() -> None:
    scores = np.arange(8.0)
    found = measure_auroc(scores, scores >= 4)
    assert found.value == 1.0
    assert found.high == 1.0
    assert 0.4 < found.low < 0.8
    many = measure_auroc(np.arange(400.0), np.arange(400) >= 200)
    assert many.low > 0.97


def test_copies_of_rows_add_nothing_where_groups_say_so() -> None:
    generator = np.random.default_rng(3)
    labels = np.arange(80) % 2 == 0
    first, second = generator.normal(size=(2, 80)) + labels * np.array([[1.0], [0.5]])
    once = auroc_difference(first, second, labels)
    copies = [np.repeat(values, 6) for values in (first, second, labels)]
    grouped = auroc_difference(*copies, groups=np.repeat(np.arange(80), 6))
    assert grouped == pytest.approx(once, abs=0.01)
    naive = auroc_difference(*copies)
    assert naive[2] - naive[1] < 0.5 * (once[2] - once[1])
