"""``marple runs`` tells a program how every run stands."""

from __future__ import annotations

import json
import os
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from marple.agent.models import ModelTurn, Usage
from marple.traces import summary_of
from marple.traces.control import request
from tests.cli.talking import begin, result, talk

KEYS = {
    *("run_id", "run_dir", "case", "kind", "investigator", "model", "seed", "state", "silent_since", "wanted"),
    *("pid", "host", "started", "seconds", "last_event", "last_ts", "status", "scores", "cost_usd", "problem"),
}


def records(*arguments: object) -> dict[str, dict[str, Any]]:
    said = talk("runs", "--json", *arguments)
    assert (said.code, said.err) == (0, "")
    return {record["run_id"]: record for record in map(json.loads, said.out.splitlines())}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A done run, a cancelled one, one whose process is gone, and a folder that is none."""
    for run_id, status in (("done", "submitted"), ("limited", "limit:turns"), ("gone", "cancelled")):
        with begin(tmp_path, run_id, case=f"secret/{run_id}", kind="secret") as folder:
            folder.write_result(result(status))
    with begin(tmp_path, "left") as folder:
        turn = ModelTurn(usage=Usage(input_tokens=10, output_tokens=2, cost_usd=0.5)).to_dict()
        folder.append("model_call", {"turn_number": 1, "purpose": "investigate", "turn": turn}, role="investigator")
    (tmp_path / "odd").mkdir()
    return tmp_path


def test_every_record_has_all_keys_and_says_how_the_run_stands(root: Path) -> None:
    with begin(root, "live") as folder, begin(root, "held") as held:
        held.append("control", {"did": "pause"})
        request(folder.path, "cancel")
        found = records("--runs", root)
    assert {frozenset(record) for record in found.values()} == {frozenset(KEYS)}
    states = {run_id: (record["state"], record["status"]) for run_id, record in found.items()}
    assert states == {
        "done": ("done", "submitted"),
        "limited": ("done", "limit:turns"),
        "gone": ("done", "cancelled"),
        "left": ("interrupted", None),
        "odd": ("broken", None),
        "live": ("running", None),
        "held": ("paused", None),
    }
    assert (found["live"]["pid"], found["live"]["host"]) == (os.getpid(), socket.gethostname())
    assert (found["live"]["wanted"], found["done"]["pid"], found["left"]["pid"]) == ("cancel", None, None)
    assert (found["done"]["cost_usd"], found["done"]["seconds"]) == (0.25, 3.5)
    # What a run that is not done has cost is counted from its events.
    assert (found["left"]["cost_usd"], found["left"]["last_event"]) == (0.5, "E2")
    assert found["done"]["run_dir"] == str(root / "done")
    assert "no run.json" in found["odd"]["problem"]


def test_a_run_that_writes_nothing_is_silent_but_not_while_it_is_paused(tmp_path: Path) -> None:
    with begin(tmp_path, "live") as folder:
        now = summary_of(folder.path)
        assert now.last_ts is not None
        assert now.silent_since(time.time()) is None
        assert now.silent_since(now.last_ts + 61) == now.last_ts
        folder.append("control", {"did": "pause"})
        assert summary_of(folder.path).silent_since(now.last_ts + 1000) is None
    assert summary_of(folder.path).silent_since(now.last_ts + 1000) is None


def test_a_silent_run_is_found_and_shown_as_such(tmp_path: Path) -> None:
    with begin(tmp_path, "live") as folder:
        log = folder.path / "events.jsonl"
        log.write_text(json.dumps({**json.loads(log.read_text()), "ts": 1e9}) + "\n")
        (record,) = records("--runs", tmp_path, "--status", "silent").values()
        assert (record["state"], record["silent_since"]) == ("running", 1e9)
        assert "silent since " in talk("runs", "--runs", tmp_path).out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("--status", "interrupted"), {"left"}),
        (("--status", "limit"), {"limited"}),
        (("--status", "limit:turns", "--status", "cancelled"), {"limited", "gone"}),
        (("--kind", "secret", "--status", "done"), {"done", "limited", "gone"}),
        (("--case", "hidden-goal/*"), {"left"}),
        (("--case", "secret/gone"), {"gone"}),
        (("--status", "silent"), set()),
    ],
)
def test_runs_are_filtered(root: Path, arguments: tuple[str, ...], expected: set[str]) -> None:
    assert set(records("--runs", root, *arguments)) == expected
    said = talk("runs", "--runs", root, *arguments)
    assert all(run_id in said.out for run_id in expected)
    assert expected or "None of the 5 runs" in said.out


def test_a_status_that_does_not_exist_is_named_with_those_that_do(root: Path) -> None:
    said = talk("runs", "--runs", root, "--status", "runing")
    assert said.code == 2
    assert "'runing'; did you mean running" in said.err


def test_the_table_says_what_is_asked_and_what_is_broken(root: Path) -> None:
    with begin(root, "live") as folder:
        request(folder.path, "pause")
        said = talk("runs", "--runs", root)
    assert "running, to pause" in said.out
    assert "broken: " in said.out
    assert "$0.25" in said.out
