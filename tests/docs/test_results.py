"""The first published evaluation: its tables are what its samples give, and its samples are those of its suite file."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from marple.agent.evaluation.plan import Plan
from marple.agent.evaluation.suite import open_suite

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def results() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_results", ROOT / "docs" / "make_results.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_results"] = module
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_what_the_samples_give(results: ModuleType) -> None:
    page = results.PAGE.read_text()
    assert results.filled(page, results.blocks(results.stored())) == page


def test_the_front_page_has_the_same_figures(results: ModuleType) -> None:
    rows = [line.split(" | ") for line in results.blocks(results.stored())["overall"] if line.startswith("| `")]
    front = (ROOT / "README.md").read_text()
    for name, _, solved, cleared, balanced, *_, tokens in rows[:3]:
        line = next(line for line in front.splitlines() if line.startswith(name + " ("))
        assert line.split(" | ")[1:] == [solved, cleared, balanced, tokens]


def test_another_score_gives_another_table(results: ModuleType) -> None:
    stored = results.stored()
    at = next(at for at, one in enumerate(stored) if one["arm"] == "scripted-whitebox" and one["solved"] == "True")
    changed = [*stored[:at], {**stored[at], "solved": "False"}, *stored[at + 1 :]]
    assert results.blocks(changed)["kinds"] != results.blocks(stored)["kinds"]
    assert results.blocks(changed)["overall"] != results.blocks(stored)["overall"]


def test_every_sample_of_the_suite_file_is_there_and_no_other(results: ModuleType) -> None:
    suite = open_suite(str(results.SUITE))
    assert suite.arms is not None
    planned = {sample.name for sample in Plan.of(suite, suite.arms, suite.epochs or 1).samples()}
    stored = [f"{one['arm']}/{one['case']}/{one['epoch']}" for one in results.stored()]
    assert len(stored) == len(set(stored))
    assert set(stored) == planned
    assert all(one["status"] not in ("not_run", "interrupted") for one in results.stored())


def test_what_a_row_keeps_comes_back(results: ModuleType) -> None:
    for one in results.stored()[:50]:
        row, called = results.row_from(one)
        again = {name: str(getattr(row, name)) if getattr(row, name) is not None else "" for name in results.FIELDS}
        assert again == {name: one[name] for name in results.FIELDS}
        assert ";".join(f"{name}:{n}" for name, n in called.items()) == one["families"]


def test_a_family_is_left_out_wherever_it_is_called(results: ModuleType) -> None:
    """Where the page leaves an ablation out, the script never called that family: the run would be the same."""
    suite = open_suite(str(results.SUITE))
    assert suite.arms is not None
    left_out = {
        (family, case.kind.name)
        for arm in suite.arms
        if len(arm.without) == 1 and arm.investigator == results.WHOLE
        for family in arm.without
        for case in suite.cases
        if arm.plays(case.id)
    }
    left_out |= {("steering", kind) for name, kind in left_out if name == "steer"}
    for one in results.stored():
        if one["arm"] == results.WHOLE:
            for called in (part.split(":")[0] for part in one["families"].split(";") if part):
                assert (called, one["kind"]) in left_out, f"{called} is called on {one['kind']}"
