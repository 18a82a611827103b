"""A mean over many runs says how many it rests on, and no missing run can flatter it."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marple.tasks.aggregate import Mean, aggregate, balanced, mean_of

SCORE = st.floats(0, 2)
SCORES = st.lists(SCORE | st.none(), min_size=1, max_size=12)


def result(clean: bool, right: bool | None, *, brier: float = 0.5, skill: float | None = 0.1) -> dict[str, Any]:
    truth = {"nothing_hidden": clean, "slots": {}}
    if right is None:
        return {"truth": truth, "scores": {"scored": False}}
    verdict = {"solved": None if clean else right, "cleared": right if clean else None}
    return {"truth": truth, "scores": {"scored": True, **verdict, "brier": brier, "forecast": {"skill": skill}}}


RUN = st.builds(result, st.booleans(), st.none() | st.booleans(), brier=SCORE, skill=st.floats(-3, 1))


@given(values=SCORES, fill=st.lists(SCORE, min_size=12, max_size=12))
def test_whatever_was_missing_the_whole_lies_within_the_bounds(values: list[float | None], fill: list[float]) -> None:
    found = mean_of(values, worst=2, best=0)
    completed = [other if value is None else value for value, other in zip(values, fill, strict=False)]
    whole = sum(completed) / len(completed)
    assert found.worst is not None
    assert found.best is not None
    assert found.best - 1e-9 <= whole <= found.worst + 1e-9
    assert (found.n, found.n_total) == (sum(value is not None for value in values), len(values))
    if found.n == found.n_total:
        assert found.worst == pytest.approx(found.value) == found.best


@given(st.lists(RUN, max_size=15), st.randoms())
def test_order_changes_nothing(runs: list[dict[str, Any]], coin: random.Random) -> None:
    shuffled = list(runs)
    coin.shuffle(shuffled)
    assert {k: str(v) for k, v in aggregate(shuffled).items()} == {k: str(v) for k, v in aggregate(runs).items()}


@given(st.lists(RUN, min_size=1, max_size=15), st.booleans())
def test_a_run_that_fails_never_raises_the_worst_case(runs: list[dict[str, Any]], clean: bool) -> None:
    before, after = aggregate(runs), aggregate([*runs, result(clean, None)])
    for name in ("scored", "solved", "cleared"):
        worst = before[name].worst
        if worst is not None:
            assert (after[name].worst or 0) <= worst + 1e-12
        # What is left out of the mean is told.
        assert after[name].value == before[name].value or name == "scored"
    hit = after["cleared" if clean else "solved"]
    assert hit.n < hit.n_total


@pytest.mark.parametrize("always_clears", [True, False])
def test_always_one_answer_is_chance(always_clears: bool) -> None:
    runs = [result(True, always_clears)] * 3 + [result(False, not always_clears)] * 9
    assert aggregate(runs)["balanced_accuracy"].value == 0.5


def test_one_kind_of_target_alone_has_no_balanced_accuracy() -> None:
    assert aggregate([result(False, True)])["balanced_accuracy"].value is None
    assert balanced(mean_of([1], worst=0, best=1), mean_of([None], worst=0, best=1)) == Mean(1, 2, None, 0.5, 1.0)


def test_what_a_kind_does_not_score_is_not_missing() -> None:
    other = {"truth": {"nothing_hidden": False}, "scores": {"scored": True, "solved": True, "cleared": None}}
    found = aggregate([other, result(False, True, brier=0.2)])
    assert (found["brier"].n, found["brier"].n_total, found["brier"].value) == (1, 1, 0.2)
    unanswered = aggregate([result(False, True, skill=None), result(False, True, skill=0.4)])["forecast_skill"]
    assert (unanswered.n, unanswered.n_total, unanswered.value) == (1, 2, 0.4)


def test_runs_without_a_truth_are_counted_by_their_claims_alone() -> None:
    own = {"truth": None, "scores": {"scored": False, "replication": {"n": 1, "n_total": 2}}}
    found = aggregate([own])
    assert found["replicated"].value == 0.5
    assert found["scored"].n_total == 0


def test_how_it_is_printed() -> None:
    assert str(mean_of([1, 0], worst=0, best=1)) == "0.500"
    assert str(mean_of([1, None], worst=0, best=1)) == "1.000 (0.500 to 1.000, 1/2)"
    assert str(mean_of([0.2, None], worst=2, best=0)) == "0.200 (0.100 to 1.100, 1/2)"
    assert str(mean_of([], worst=0, best=1)) == "-"
