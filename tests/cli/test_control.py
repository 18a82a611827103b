"""``marple cancel``, ``pause``, ``go`` and ``resume`` on runs of this process, of another one, and of none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from marple.traces import RunFolder, summary_of
from marple.traces.control import latest, request, wanted
from tests.cli.talking import begin, result, talk

SCRIPT = Path(__file__).parents[1] / "agent" / "scripted_run.py"


def wait_for(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_run_in_another_process_is_paused_let_go_and_cancelled(tiny: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    player = subprocess.Popen([sys.executable, str(SCRIPT), "start", str(tiny), str(tmp_path)], env=environment)
    try:
        wait_for(lambda: any(path.read_bytes().count(b"\n") > 4 for path in tmp_path.glob("*/events.jsonl")))
        (path,) = tmp_path.iterdir()
        said = talk("pause", path.name[:-1], "--runs", tmp_path)
        assert f"process {player.pid}" in said.out
        wait_for(lambda: summary_of(path).state == "paused")
        before = len(RunFolder.open(path).events())
        said = talk("resume", path.name, "--runs", tmp_path)
        assert (said.code, f"Process {player.pid}" in said.out) == (0, True)
        wait_for(lambda: len(RunFolder.open(path).events()) > before + 2)
        said = talk("cancel", path, "--json")
        record = json.loads(said.out)
        assert (said.code, record["state"], record["status"]) == (0, "done", "cancelled")
        player.wait(timeout=60)
    finally:
        player.kill()
        player.wait()
    assert talk("resume", path).code == 3
    said = talk("show", path)
    assert "cancelled" in said.out
    assert not (path / "lock").exists()


def test_runs_that_nobody_plays_are_finished_as_cancelled(tmp_path: Path) -> None:
    for run_id in ("a-1", "a-2", "b-1"):
        begin(tmp_path, run_id).close()
    with begin(tmp_path, "done") as folder:
        folder.write_result(result())
    said = talk("cancel", "a-1", "a-2", "done", "a-1", "--runs", tmp_path)
    assert said.code == 0
    assert said.out.splitlines() == [
        "a-1  cancelled; no process played it any more",
        "a-2  cancelled; no process played it any more",
        "done  had ended before: submitted",
    ]
    found = RunFolder.open(tmp_path / "a-1").result
    assert found is not None
    assert (found["status"], found["scores"], found["case"]) == ("cancelled", {"scored": False}, "hidden-goal/example")
    assert summary_of(tmp_path / "b-1").state == "interrupted"


def test_all_asks_first_or_is_told_not_to(tmp_path: Path) -> None:
    begin(tmp_path, "a").close()
    begin(tmp_path, "b").close()
    said = talk("cancel", "--all", "--runs", tmp_path)
    assert (said.code, "say --yes" in said.err) == (2, True)
    assert wanted(tmp_path / "a") == "go"
    assert talk("cancel", "--all", "--yes", "--runs", tmp_path).code == 0
    assert {summary_of(tmp_path / name).outcome for name in "ab"} == {"cancelled"}
    said = talk("cancel", "--all", "--yes", "--runs", tmp_path)
    assert (said.code, said.out) == (0, "")


def test_a_process_that_does_not_obey_in_time_is_named(tmp_path: Path) -> None:
    with begin(tmp_path, "a"):
        said = talk("cancel", "a", "--runs", tmp_path, "--wait", "0.3")
    assert said.code == 1
    assert f"process {os.getpid()}" in said.out
    # Its process has died over it: the next cancel finishes it.
    assert talk("cancel", "a", "--runs", tmp_path).code == 0
    assert summary_of(tmp_path / "a").outcome == "cancelled"


def test_a_pause_of_a_run_that_nobody_plays_says_so_and_is_taken_back(tmp_path: Path) -> None:
    begin(tmp_path, "a").close()
    assert "no process plays it" in talk("pause", "a", "--runs", tmp_path).out
    assert wanted(tmp_path / "a") == "pause"
    said = talk("go", "a", "--runs", tmp_path)
    assert "marple resume" in said.out
    asked = latest(tmp_path / "a")
    assert asked is not None
    assert (asked.wanted, asked.by) == ("go", "marple go")


def test_what_cannot_be_asked_is_refused(tmp_path: Path) -> None:
    with begin(tmp_path, "done") as folder:
        folder.write_result(result())
    begin(tmp_path, "ending").close()
    request(tmp_path / "ending", "cancel")
    for arguments, words in (
        (("cancel",), "say which runs"),
        (("cancel", "--all", "done"), "not both"),
        (("pause", "done"), "is done"),
        (("go", "done"), "is done (submitted)"),
        (("go", "ending"), "to be cancelled"),
        (("pause", "nowhere"), "unknown run 'nowhere'"),
    ):
        said = talk(*arguments, "--runs", tmp_path)
        assert (said.code, words in said.err) == (2, True), said
