"""Calibration: the parts of the Brier score add up, and an error is read against its own bias."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression

from marple.agent.evaluation.calibration import calibration
from marple.agent.evaluation.folder import rows_in
from marple.agent.evaluation.reporting import make_report
from marple.agent.evaluation.rows import Row
from tests.evaluation.conftest import Evaluate
from tests.evaluation.simulated import row

SAID = st.lists(
    st.tuples(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 0.95, 1.0]), st.booleans()), min_size=1, max_size=30
)


def samples(said: list[tuple[float, bool]]) -> list[Row]:
    return [
        row("a", at, clean=False, right=True, credence=p, credence_right=right) for at, (p, right) in enumerate(said)
    ]


@settings(max_examples=30, deadline=None)
@given(SAID)
def test_the_parts_are_those_of_isotonic_recalibration_and_add_up(said: list[tuple[float, bool]]) -> None:
    p, y = np.asarray([one[0] for one in said]), np.asarray([float(one[1]) for one in said])
    best = float(np.mean((IsotonicRegression().fit(p, y).predict(p) - y) ** 2))
    found = calibration(samples(said), "leading")
    assert found.brier == pytest.approx(np.mean((p - y) ** 2))
    parts = [found.miscalibration, found.discrimination, found.uncertainty]
    worse, better, flat = (-1.0 if part is None else part for part in parts)
    assert worse == pytest.approx(np.mean((p - y) ** 2) - best, abs=1e-9)
    assert flat == pytest.approx(y.mean() * (1 - y.mean()))
    assert worse - better + flat == pytest.approx(found.brier, abs=1e-12)
    assert min(worse, better) >= -1e-12


def test_the_error_is_the_distance_of_the_bins_weighted_by_their_size() -> None:
    found = calibration(samples([(0.3, True), (0.3, False), (0.9, True), (0.9, True)]), "leading")
    assert [(one.n, one.stated, one.happened) for one in found.bins] == [(2, 0.3, 0.5), (2, pytest.approx(0.9), 1.0)]
    assert found.ece == pytest.approx(0.5 * 0.2 + 0.5 * 0.1)


def test_a_calibrated_forecaster_has_an_error_that_is_expected_and_a_boaster_more() -> None:
    rng = random.Random(1)
    honest = [(p, rng.random() < p) for p in [rng.choice((0.2, 0.5, 0.8, 0.95)) for _ in range(60)]]
    found = calibration(samples(honest), "leading")
    assert found.ece is not None
    assert found.ece_limit is not None
    assert 0 < (found.ece_if_calibrated or 0) < found.ece_limit
    assert found.ece <= found.ece_limit
    boaster = calibration(samples([(0.99, rng.random() < 0.6) for _ in range(60)]), "leading")
    assert (boaster.ece or 0) > (boaster.ece_limit or 1)


def test_nothing_hidden_is_judged_on_both_sorts_of_target_and_what_is_missing_is_counted() -> None:
    rows = [
        row("a", 1, clean=True, right=True, nothing=0.9),
        row("a", 2, clean=False, right=True, nothing=0.2),
        row("a", 3, clean=False, right=None),
        row("a", 4, clean=False, right=True),  # a kind that does not ask it
    ]
    found = calibration(rows, "nothing")
    assert (found.n, found.n_total) == (2, 3)
    assert found.brier == pytest.approx((0.01 + 0.04) / 2)


def test_without_a_probability_there_is_no_calibration() -> None:
    found = calibration([row("a", 1, clean=True, right=None)], "leading")
    assert (found.n, found.n_total, found.brier, found.ece) == (0, 1, None, None)


def forecast(*said: tuple[float, float], asked: int | None = None) -> dict[str, Any]:
    """A round's scores as a result and its events have them."""
    n = len(said)
    given = {"probabilities": [p for p, _ in said], "outcomes": [y for _, y in said]} if said else {"outcomes": [True]}
    return {"n": n, "n_total": n if asked is None else asked, **given}


def test_forecasts_are_judged_question_by_question_over_the_runs_of_an_arm() -> None:
    first = forecast((0.9, True), (0.9, True), (0.2, False))
    rows = [
        row("a", 1, clean=False, right=True, scores={"forecast": first}),
        row("a", 2, clean=True, right=True, scores={"forecast": forecast((0.2, True))}),
        row("a", 3, clean=True, right=True, scores={"forecast": forecast(asked=3)}),  # asked and not answered
        row("a", 4, clean=True, right=True, scores={}),  # a kind that does not ask
        row("a", 5, clean=True, right=None),
    ]
    found = calibration(rows, "forecast")
    assert (found.n, found.n_total, found.organisms) == (4, 7, 2)
    assert [(one.n, round(one.stated, 9), one.happened) for one in found.bins] == [(2, 0.2, 0.5), (2, 0.9, 1.0)]
    assert found.brier == pytest.approx((0.01 + 0.01 + 0.04 + 0.64) / 4)
    assert (found.ece_limit or 0) > 0
    assert calibration(rows, "fires").n_total == 0


def test_shares_that_came_true_have_no_known_bias() -> None:
    found = calibration(
        [row("a", 1, clean=False, right=True, scores={"fires": forecast((0.5, 0.75), (0.0, 0.0))})], "fires"
    )
    assert found.brier == pytest.approx(0.0625 / 2)
    assert (found.n, found.ece_if_calibrated, found.ece_limit) == (2, None, None)


async def test_the_report_of_a_played_evaluation_has_them(
    play: Evaluate, plan_of: Callable[..., Any], tmp_path: Path
) -> None:
    await play(plan_of("player", epochs=2))
    found = calibration(rows_in(tmp_path / "out"), "forecast")
    # This player says 0.5 to each of the 20 questions of a run.
    assert (found.n, found.n_total) == (40, 40)
    assert found.brier == pytest.approx(0.25)
    assert [(one.n, one.stated) for one in found.bins] == [(40, 0.5)]
    make_report(tmp_path / "out")
    told = json.loads((tmp_path / "out" / "results.json").read_text())["calibration"]
    (one,) = [one for one in told if one["subject"] == "forecast"]
    assert (one["n"], one["brier"]) == (40, pytest.approx(0.25))
    assert "40 of 40 questions" in (tmp_path / "out" / "report.html").read_text()
    assert "40/40" in (tmp_path / "out" / "report.md").read_text()
