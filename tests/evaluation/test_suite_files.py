"""Suite files and files of arms are read strictly, and the published schemas say the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from marple.agent.evaluation.arms import ARM_KEYS, Arm, named_arms, read_arms, with_controls
from marple.agent.evaluation.schemas import schema_text
from marple.agent.evaluation.suite import CRITERIA_KEYS, SUITE_KEYS, open_suite
from marple.agent.evaluation.totals import TotalBudget
from marple.errors import UsageError
from marple.tasks.budget import Budget

SUITE = """\
# yaml-language-server: $schema=./suite.schema.json
suite: nano
select: [hidden-goal/nano-0*, secret/*]
arms:
  - prior
  - {name: mine, investigator: llm, model: openai-chat/mine, base_url: "http://127.0.0.1:9/v1", without: [sae]}
  - {name: black, investigator: scripted-blackbox, only: 1, budget: {calls: 3}}
epochs: 2
run_budget: {turns: 20, seconds: none}
budget: {cost: 5, target_tokens: 100_000_000}
criteria:
  stop: two epochs are played
  success: the interval excludes 0
"""


def written(tmp_path: Path, text: str, name: str = "suite.yaml") -> str:
    path = tmp_path / name
    path.write_text(text)
    return str(path)


def test_a_suite_file_says_who_plays_what(tmp_path: Path) -> None:
    suite = open_suite(written(tmp_path, SUITE))
    assert {case.id.split("/")[0] for case in suite.cases} == {"hidden-goal", "secret"}
    assert suite.epochs == 2
    assert suite.arms is not None
    assert [arm.name for arm in suite.arms] == ["prior", "mine", "black"]
    assert suite.arms[1].without == ("sae",)
    assert (suite.arms[2].only, suite.arms[2].budget) == ("1", {"calls": 3})
    assert suite.run_budget == {"turns": 20, "seconds": None}
    assert suite.budget == TotalBudget(cost=5, target_tokens=100_000_000)
    assert suite.criteria == {"stop": "two epochs are played", "success": "the interval excludes 0"}


def test_cases_are_named_by_id_or_by_file(tmp_path: Path) -> None:
    own = "{kind: hidden-goal, id: mine, target: some/model, reference: some/base, truth: {nothing_hidden: true}}"
    case_file = written(tmp_path, own, "mine.yaml")
    suite = open_suite(written(tmp_path, "cases: [hidden-goal/nano-03, mine.yaml]"))
    assert [case.id for case in suite.cases] == ["hidden-goal/nano-03", "hidden-goal/mine"]
    assert suite.cases[1].file == str(tmp_path / "mine.yaml")
    assert [case.id for case in open_suite(case_file).cases] == ["hidden-goal/mine"]


MISTAKES = [
    ("suite: nano\ncases: [hidden-goal/nano-03]", 1, "has `suite`"),
    ("suite: nanno", 1, "did you mean nano"),
    ("suite: nano\nselect: [hiden/*]", 2, "no case of the suite fits 'hiden/*'"),
    ("cases:\n  - hidden-goal/nano-03\n  - hidden-goal/nano-03", 3, "there twice"),
    ("cases: [hidden-goal/nano-99]", 1, "unknown case"),
    ("cases: [none.yaml]", 1, "cannot be read"),
    ("suite: nano\nepochs: 0", 2, "epochs is 0"),
    ("suite: nano\nepochs: true", 2, "epochs is True"),
    ("suite: nano\nepoch: 3", 2, "did you mean epochs"),
    ("suite: nano\nbudget: {calls: 3}", 2, "unknown key 'calls'"),
    ("suite: nano\nbudget: {cost: -1}", 2, "above 0"),
    ("suite: nano\nrun_budget: {calls: 0}", 2, "calls=0"),
    ("suite: nano\ncriteria: {win: yes}", 2, "valid: stop, success"),
    ("suite: nano\ncriteria: {stop: ''}", 2, "not a text"),
    ("suite: nano\narms: prior", 2, "arms are a list"),
    ("suite: nano\narms:\n  - prior\n  - priro", 4, "did you mean prior"),
    ("suite: nano\narms:\n  - prior\n  - prior", 4, "there twice"),
    ("suite: nano\narms:\n  - prior\n  - {investigator: prior, name: other}", 4, "differ in nothing but their name"),
    ("suite: nano\narms:\n  - {investigator: llm}", 3, "needs a `model`"),
    ("suite: nano\narms:\n  - {investigator: prior, model: a/b}", 3, "uses no language model"),
    ("suite: nano\narms:\n  - {investigator: prior, name: a b}", 3, "letters, digits"),
    ("suite: nano\narms:\n  - {investigator: prior, without: [saee]}", 3, "did you mean sae"),
    ("suite: nano\narms:\n  - {investigator: prior, only: 9}", 3, "unknown rung or family"),
    ("suite: nano\narms:\n  - {investigator: prior, budget: {call: 1}}", 3, "did you mean calls"),
    ("suite: nano\narms:\n  - human", 3, "a person plays it"),
    ("suite: nano\narms:\n  - {investigator: prior, members: 3}", 3, "has no members"),
    ("suite: nano\narms:\n  - {investigator: ensemble, members: 65}", 3, "from 1 to 64"),
    ("suite: nano\narms:\n  - {investigator: ensemble, member_investigator: llm}", 3, "need a `model`"),
    ("suite: nano\nsuite: open", 2, "there twice"),
]


@pytest.mark.parametrize(("text", "line", "said"), MISTAKES)
def test_a_mistake_is_told_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    path = written(tmp_path, text)
    with pytest.raises(UsageError) as caught:
        open_suite(path)
    assert str(caught.value).startswith(f"{path}:{line}: ")
    assert said in str(caught.value)


def test_named_arms() -> None:
    assert [arm.name for arm in named_arms("prior, scripted-blackbox")] == ["prior", "scripted-blackbox"]
    for text, said in [
        ("priro", "did you mean prior"),
        ("prior,prior", "there twice"),
        ("llm", "needs a model"),
        (" , ", "names no arm"),
    ]:
        with pytest.raises(UsageError, match=said):
            named_arms(text)


def test_what_only_others_can_play_is_not_among_the_valid_arms(tmp_path: Path) -> None:
    for text in ("- nobody\n", "- {name: x, investigator: nobody}\n", "- {name: x}\n"):
        with pytest.raises(UsageError, match="valid: ") as caught:
            read_arms(Path(written(tmp_path, text)))
        valid = str(caught.value).partition("valid: ")[2].partition(")")[0].split(", ")
        assert {"prior", "llm", "scripted-blackbox"} <= set(valid)
        assert not {"human", "mcp", "shell"} & set(valid)
    with pytest.raises(UsageError, match="unknown arm 'nobody'") as caught:
        named_arms("nobody")
    assert not {"human", "mcp", "shell"} & set(str(caught.value).replace(",", " ").replace(")", " ").split())
    with pytest.raises(UsageError, match="human cannot be an arm: a person plays it"):
        named_arms("human")


def test_arms_of_a_file_may_stand_alone_or_under_a_key(tmp_path: Path) -> None:
    plain = read_arms(Path(written(tmp_path, "- prior\n")))
    assert plain == read_arms(Path(written(tmp_path, "arms: [prior]\n"))) == [Arm("prior", "prior")]


def test_a_language_model_never_stands_without_controls() -> None:
    mine = Arm("mine", "llm", model="openai-chat/mine")
    assert [arm.name for arm in with_controls([mine])] == ["prior", "scripted-blackbox", "mine"]
    black = Arm("black", "scripted-blackbox")
    assert [arm.name for arm in with_controls([black, mine])] == ["prior", "black", "mine"]
    assert with_controls([Arm("prior", "prior")]) == [Arm("prior", "prior")]


def test_the_budget_of_an_evaluation_as_typed() -> None:
    assert TotalBudget.of_text("cost=5,seconds=60") == TotalBudget(cost=5, seconds=60)
    for text, said in [
        ("calls=3", "cost, seconds, target_tokens"),
        ("cost", "not KEY=VALUE"),
        ("cost=much", "above 0"),
    ]:
        with pytest.raises(UsageError, match=said):
            TotalBudget.of_text(text)


# ---------------------------------------------------------------------------------- the published schemas


def schema(name: str) -> Any:
    return json.loads(schema_text(name))


def test_the_schemas_have_the_keys_that_the_readers_take() -> None:
    suite = schema("suite")["properties"]
    assert set(suite) == set(SUITE_KEYS)
    assert set(suite["criteria"]["properties"]) == set(CRITERIA_KEYS)
    assert set(suite["budget"]["properties"]) == set(TotalBudget.names())
    assert set(suite["run_budget"]["properties"]) == set(Budget.names())
    arm = schema("arms")["anyOf"][0]["items"]["anyOf"][1]["properties"]
    assert set(arm) == set(ARM_KEYS)
    assert suite["arms"]["items"]["anyOf"][1]["properties"] == arm


NAMES_ONLY = (
    "did you mean",
    "no case of",
    "unknown case",
    "cannot be read",
    "a `model`",
    "uses no language",
    "plays it",
    "no members",
)
"""Mistakes in what a name stands for, which no schema of a file can know."""


def test_the_schema_accepts_what_the_reader_reads_and_refuses_what_it_refuses() -> None:
    for name in ("suite", "arms"):
        jsonschema.Draft202012Validator.check_schema(schema(name))
    jsonschema.validate(yaml.safe_load(SUITE), schema("suite"))
    validator = jsonschema.Draft202012Validator(schema("suite"))
    refused = [
        text
        for text, _, _ in MISTAKES
        if not text.endswith("suite: open") and list(validator.iter_errors(yaml.safe_load(text)))
    ]
    structural = [
        text
        for text, _, said in MISTAKES
        if not any(part in said for part in (*NAMES_ONLY, "twice", "differ in", "unknown rung"))
        or "did you mean epochs" in said
    ]
    assert set(structural) <= set(refused)
    arms = yaml.safe_load(SUITE)["arms"]
    jsonschema.validate(arms, schema("arms"))
    assert list(jsonschema.Draft202012Validator(schema("arms")).iter_errors([{"name": "x"}]))


def test_the_files_in_the_documents_are_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
    blocks = re.findall(r"^```yaml\n(# yaml-language-server.*?)^```", page, re.MULTILINE | re.DOTALL)
    suite, arms = blocks
    assert open_suite(written(tmp_path, suite)).epochs == 3
    jsonschema.validate(yaml.safe_load(suite), schema("suite"))
    assert len(read_arms(Path(written(tmp_path, arms, "arms.yaml")))) == 6
    jsonschema.validate(yaml.safe_load(arms), schema("arms"))
