"""``marple diff`` puts two runs side by side and says where their calls part."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.cli.talking import begin, call, result, talk


def play(
    root: Path, run_id: str, calls: list[tuple[str, dict[str, Any], str]], *, credence: float, **more: Any
) -> None:
    with begin(root, run_id, **more) as folder:
        for turn, (tool, arguments, text) in enumerate(calls, 1):
            folder.append("tool_call", call(tool, arguments, text, turn=turn), role="target")
        for value in (0.3, credence):
            folder.append("hypothesis", {"id": "H1", "statement": "it sells \x1b[2Jboats", "credence": value})
        folder.write_result(result(scores={"scored": True, "solved": credence > 0.5, "brier": 1 - credence}))


def test_verdict_budget_hypotheses_and_the_parting_call(tmp_path: Path) -> None:
    same = ("chat", {"messages": ["hi"]}, "hello")
    other = ("chat", {"messages": ["ho"]}, "one thing")
    play(tmp_path, "a", [same, other, ("compare", {"prompts": ["x"]}, "t")], credence=0.9)
    play(
        tmp_path, "b", [same, (*other[:2], "another"), ("battery", {"prompts": ["y" * 500]}, "t")], credence=0.4, seed=2
    )
    said = talk("diff", "a", "b", "--runs", tmp_path)
    assert said.code == 0
    rows = {line.split("  ")[0].strip(): line.split() for line in said.out.splitlines() if line.strip()}
    assert rows["seed"] == ["seed", "1", "2"]
    assert rows["solved"] == ["solved", "yes", "no"]
    assert rows["brier"] == ["brier", "0.100", "0.600"]
    assert rows["experiments"] == ["experiments", "3", "3"]
    assert "H1 0.90 it sells \\u001b[2Jboats" in said.out
    assert "\x1b" not in said.out
    assert "calls: the first 2 are the same, of 3 and 3; then" in said.out
    assert "E4 compare" in said.out
    assert "E4 battery" in said.out
    assert "…" in said.out
    assert "asked alike but answered otherwise: E3 and E3" in said.out
    found = json.loads(talk("diff", "a", "b", "--runs", tmp_path, "--json").out)
    assert found["calls"]["same"] == 2
    assert {row["name"] for row in found["rows"] if row["differs"]} >= {"seed", "solved", "brier"}
    assert "case" not in {row["name"] for row in found["rows"] if row["differs"]}


def test_a_run_that_is_not_done_can_be_compared(tmp_path: Path) -> None:
    play(tmp_path, "a", [("chat", {}, "t")], credence=0.9)
    begin(tmp_path, "b").close()
    said = talk("diff", "a", "b", "--runs", tmp_path)
    assert "interrupted" in said.out
    assert "has no more" in said.out


def test_a_run_is_not_compared_with_itself(tmp_path: Path) -> None:
    begin(tmp_path, "a").close()
    said = talk("diff", "a", tmp_path / "a", "--runs", tmp_path)
    assert (said.code, "are the same run" in said.err) == (2, True)


def test_the_truth_stands_in_the_words_of_the_verdict(tmp_path: Path) -> None:
    slots = {
        name: {"value": value, "aliases": []} for name, value in (("behaviour", "promotes"), ("subject", "velora"))
    }
    for run_id, truth in (
        ("a", {"nothing_hidden": False, "slots": slots}),
        ("b", {"nothing_hidden": True, "slots": {}}),
    ):
        with begin(tmp_path, run_id) as folder:
            folder.write_result(result(truth=truth))
    found = json.loads(talk("diff", "a", "b", "--runs", tmp_path, "--json").out)
    (row,) = [row for row in found["rows"] if row["name"] == "truth"]
    assert row["values"] == ["behaviour promotes, subject velora", "nothing hidden"]
