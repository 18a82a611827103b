"""A row says what its run left behind, and nothing that it did not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from marple.agent.configuration import RunConfig
from marple.agent.evaluation.collecting import completed, row_of
from marple.agent.evaluation.rows import Row
from marple.agent.run import launch
from tests.evaluation.simulated import row

CANDIDATES = [{"subject": "velora", "probability": 0.7}, {"subject": "kettle", "probability": 0.2}]


def result(*, clean: bool = False, answer: dict[str, Any] | None = None, **scores: Any) -> dict[str, Any]:
    return {
        "model": "openai-chat/x",
        "truth": {"nothing_hidden": clean, "slots": {}},
        "answer": answer or {"nothing_hidden": 0.1, "candidates": CANDIDATES},
        "scores": {"scored": True, "solved": None if clean else True, "cleared": True if clean else None, **scores},
        "usage": {"turns": 3, "calls": 2, "target_tokens": 9, "seconds": 1.5, "investigator": {"cost_usd": None}},
    }


def made(found: dict[str, Any] | None, *, status: str = "submitted", **more: Any) -> Row:
    given = {
        "key": "k",
        "arm": "a",
        "case": "secret/x",
        "kind": "secret",
        "organism": "o",
        "epoch": 1,
        "seed": 7,
        **more,
    }
    return row_of(**given, result=found, status=status)


async def test_the_row_of_a_real_run_has_what_its_result_has(tmp_path: Path) -> None:
    outcome = await launch(RunConfig.of(case="hidden-goal/nano-09", investigator="prior", runs=tmp_path))
    found = outcome.result
    assert found is not None
    sample = made(found, case="hidden-goal/nano-09", kind="hidden-goal")
    assert (sample.scored, sample.clean, sample.solved, sample.cleared) == (True, False, False, None)
    assert (sample.brier, sample.forecast_skill) == (found["scores"]["brier"], found["scores"]["forecast"]["skill"])
    assert (sample.nothing, sample.credence, sample.credence_right) == (0.5, 0.5, False)
    assert (sample.turns, sample.calls, sample.cost_usd) == (1, 0, 0.0)
    assert Row.from_dict(json.loads(json.dumps(sample.to_dict()))) == sample


@pytest.mark.parametrize(
    ("answer", "clean", "slots", "leading"),
    [
        ({"nothing_hidden": 0.1, "candidates": CANDIDATES}, False, {"subject": True}, (0.7, True)),
        ({"nothing_hidden": 0.1, "candidates": CANDIDATES}, False, {"subject": True, "trigger": False}, (0.7, False)),
        ({"nothing_hidden": 0.1, "candidates": CANDIDATES}, True, {}, (0.7, False)),
        ({"nothing_hidden": 0.8, "candidates": []}, True, {}, (0.8, True)),
        ({"nothing_hidden": 0.8, "candidates": []}, False, {"subject": False}, (0.8, False)),
        ({"nothing_to_stop": 0.2}, False, {}, (0.8, True)),
        ({"nothing_odd": 0.9, "flagged": []}, False, {}, (0.9, False)),
        ({"yes": 0.9, "claims": []}, False, {}, (0.9, True)),
        ({"monitor": None}, False, {}, (None, None)),
    ],
)
def test_the_leading_answer_is_the_most_probable_one_whatever_is_true(answer, clean, slots, leading) -> None:
    """Calibration of what is chosen by the truth would say nothing: a sure miss must count as one."""
    sample = made(result(clean=clean, answer=answer, slots=slots))
    assert (sample.credence, sample.credence_right) == (pytest.approx(leading[0]) if leading[0] else None, leading[1])


def test_a_price_that_is_not_known_is_not_0() -> None:
    assert made(result()).cost_usd is None


@pytest.mark.parametrize("found", [None, {**result(), "answer": None, "scores": {"scored": False}}])
def test_a_run_without_a_score_has_no_marks(found: dict[str, Any] | None) -> None:
    sample = made(found, status="worker_died", error="lost", clean=False)
    assert (sample.scored, sample.solved, sample.brier, sample.nothing) == (False, None, None, None)
    assert (sample.status, sample.error, sample.clean) == ("worker_died", "lost", False)


def test_a_null_on_a_target_nobody_knows_is_kept_without_a_score() -> None:
    unknown = {**result(answer={"nothing_hidden": 0.9, "candidates": []}), "truth": None, "scores": {"scored": False}}
    sample = made(unknown)
    assert (sample.scored, sample.clean, sample.nothing) == (False, None, 0.9)
    assert made(unknown, status="refused_investigator").nothing is None


def test_a_lost_sample_counts_where_its_case_belongs() -> None:
    played = row("a", 1, clean=True, right=True)
    lost = row("b", 1, clean=True, right=None)
    found = completed([played, Row.from_dict({**lost.to_dict(), "clean": None})])
    assert [one.clean for one in found] == [True, True]


def test_a_case_that_nobody_has_finished_counts_by_its_truth_all_the_same() -> None:
    lost = row("a", 3, clean=False, right=None).to_dict()
    known = [Row.from_dict({**lost, "clean": None, "case": f"hidden-goal/{case}"}) for case in ("nano-03", "nano-09")]
    assert [one.clean for one in completed(known)] == [True, False]
    assert completed([Row.from_dict({**lost, "clean": None, "case": "hidden-goal/own"})])[0].clean is None
