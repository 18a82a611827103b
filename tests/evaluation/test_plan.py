"""The plan: what a sample's key changes with, and a folder that is not taken for another plan's."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marple.agent.evaluation.arms import Arm
from marple.agent.evaluation.folder import EvaluationFolder
from marple.agent.evaluation.plan import Plan
from marple.agent.evaluation.suite import Suite
from marple.errors import CorruptTraceError, UsageError
from marple.tasks.case import find_case

PlanOf = Callable[..., Plan]


def keys(plan: Plan) -> dict[str, str]:
    return {sample.name: sample.key for sample in plan.samples()}


def test_the_grid_is_the_product_with_one_target_after_the_other(plan_of: PlanOf) -> None:
    samples = plan_of("prior", "scripted-blackbox", cases=("nano-03", "nano-07"), epochs=2).samples()
    assert len({sample.key for sample in samples}) == len(samples) == 8
    assert [sample.organism for sample in samples] == ["nano-03"] * 4 + ["nano-07"] * 4
    assert {(sample.arm.name, sample.seed) for sample in samples if sample.epoch == 2} == {
        ("prior", 2),
        ("scripted-blackbox", 2),
    }


def test_an_arm_plays_the_cases_that_it_names_under_the_same_keys(plan_of: PlanOf) -> None:
    whole = plan_of("prior", "scripted-blackbox", cases=("nano-03", "nano-07"))
    some = replace(whole, arms=[whole.arms[0], replace(whole.arms[1], cases=("*/nano-07", "secret/*"))])
    left = {name for name in keys(whole) if name != "scripted-blackbox/hidden-goal/nano-03/1"}
    assert keys(some) == {name: key for name, key in keys(whole).items() if name in left}
    again = Plan.from_document(json.loads(json.dumps(some.to_document())))
    assert list(again.arms) == list(some.arms)
    assert "cases was" in " ".join(some.differences(whole))


def test_a_pattern_that_fits_no_case_is_refused_with_the_kinds_there_are() -> None:
    suite = Suite("test", [find_case("hidden-goal/nano-03")])
    with pytest.raises(UsageError, match=r"the arm prior plays 'secret/\*'.*kinds: hidden-goal/\*"):
        Plan.of(suite, [Arm("prior", "prior", cases=("secret/*",))], 1)
    # What an arm does not play need not leave it a tool.
    Plan.of(suite, [Arm("a", "prior"), Arm("b", "scripted-blackbox", cases=("*/nano-03",))], 1)


def test_a_key_changes_with_all_that_a_sample_is_and_nothing_else(plan_of: PlanOf) -> None:
    plan = plan_of("prior", "scripted-blackbox")
    before = keys(plan)
    assert keys(plan_of("prior", "scripted-blackbox", cases=("nano-03", "nano-07"), epochs=3)).items() >= before.items()
    (case,) = plan.cases
    model = Arm("prior", "llm", model="a/b")
    for other in (
        replace(plan, cases=[replace(case, version="another")]),
        replace(plan, cases=[replace(case, comparability=99)]),
        replace(plan, first_seed=7),
        replace(plan, run_budget={"calls": 3}),
    ):
        assert not set(keys(other).values()) & set(before.values())
    changes: list[dict[str, Any]] = [{"model": "a/c"}, {"effort": "high"}, {"only": "1"}, {"without": ("sae",)}]
    changes += [{"base_url": "http://x"}, {"budget": {"turns": 3}}]
    arms = [model, *(replace(model, **change) for change in changes)]
    assert len({replace(plan, arms=[arm]).samples()[0].key for arm in arms}) == len(arms)
    renamed = replace(plan, arms=[replace(model, name="other")]).samples()[0]
    assert renamed.key == replace(plan, arms=[model]).samples()[0].key


def test_the_budget_of_a_run_is_the_cases_the_suites_and_the_arms(plan_of: PlanOf) -> None:
    plan = plan_of("prior", run_budget={"calls": 5, "turns": 6})
    sample = replace(plan, arms=[Arm("prior", "prior", budget={"calls": 7})]).samples()[0]
    assert (sample.budget["calls"], sample.budget["turns"]) == (7, 6)


def test_no_epochs_and_no_tools_are_refused(plan_of: PlanOf) -> None:
    with pytest.raises(UsageError, match="--epochs 0"):
        plan_of("prior", epochs=0)


def test_the_document_gives_the_plan_back_and_shows_when_it_was_touched(plan_of: PlanOf) -> None:
    plan = plan_of("prior", epochs=2, criteria={"stop": "two epochs", "success": "better than chance"})
    document = json.loads(json.dumps(plan.to_document()))
    again = Plan.from_document(document)
    assert keys(again) == keys(plan)
    assert again.differences(plan) == plan.differences(again) == []
    assert len(document["criteria_sha256"]) == 64
    document["criteria"]["success"] = "anything"
    with pytest.raises(CorruptTraceError, match="was changed since"):
        Plan.from_document(document)


def test_another_plan_is_refused_with_what_differs_and_the_way_out(plan_of: PlanOf, tmp_path: Path) -> None:
    plan = plan_of("prior", cases=("nano-03",))
    folder = EvaluationFolder(tmp_path / "out")
    with folder.held(plan):
        pass
    written = (tmp_path / "out" / "evaluation.json").read_bytes()
    folder.check(plan)
    for other, said in [
        (plan_of("scripted-blackbox"), "the arm prior is gone"),
        (plan_of("prior", cases=("nano-03", "nano-07")), "the case hidden-goal/nano-07 is new"),
        (plan_of("prior", epochs=2), "epochs was 1 and is 2"),
        (replace(plan, arms=[Arm("prior", "prior", budget={"turns": 2})]), "the arm prior: budget was {}"),
        (replace(plan, criteria={"stop": "now"}), "criteria was {}"),
        (replace(plan, cases=[replace(plan.cases[0], version="another")]), "version was"),
    ]:
        with pytest.raises(UsageError) as caught, folder.held(other):
            pass
        assert said in str(caught.value)
        assert "another --out" in str(caught.value)
    assert (tmp_path / "out" / "evaluation.json").read_bytes() == written


def test_a_folder_of_something_else_and_a_file_are_refused(plan_of: PlanOf, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").write_text("mine")
    for name, said in [("file", "is a file"), ("other", "thesis.tex")]:
        with pytest.raises(UsageError, match=said), EvaluationFolder(tmp_path / name).held(plan_of("prior")):
            pass
    assert [one.name for one in (tmp_path / "other").iterdir()] == ["thesis.tex"]


def test_two_commands_do_not_play_one_folder(plan_of: PlanOf, tmp_path: Path) -> None:
    plan = plan_of("prior")
    with (
        EvaluationFolder(tmp_path).held(plan),
        pytest.raises(UsageError, match="is writing"),
        EvaluationFolder(tmp_path).held(plan),
    ):
        pass


def test_arms_may_stand_in_another_order(plan_of: PlanOf) -> None:
    assert plan_of("prior", "scripted-blackbox").differences(plan_of("scripted-blackbox", "prior")) == []


def test_what_a_document_lacks_is_named(plan_of: PlanOf) -> None:
    document: dict[str, Any] = plan_of("prior").to_document()
    del document["arms"]
    with pytest.raises(CorruptTraceError, match="arms"):
        Plan.from_document(document)
