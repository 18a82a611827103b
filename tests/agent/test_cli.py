"""The command line as a person and a program use it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from marple.sandboxes import choose_backend
from marple.traces import RunFolder


def marple(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "marple.cli", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[dict[str, object]]]:
    """A folder with one run, and the two records that the run printed."""
    folder = tmp_path_factory.mktemp("cli")
    done = marple("run", "hidden-goal/nano-09", "--seed", "1", "--json", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder, [json.loads(line) for line in done.stdout.splitlines()]


def test_json_prints_a_launch_and_a_done_record(played: tuple[Path, list[dict[str, object]]]) -> None:
    launch, done = played[1]
    assert set(launch) == {"run_id", "run_dir", "case", "investigator"}
    assert {**done, **launch} == done
    assert set(done) - set(launch) == {"status", "scores", "usage"}
    assert done["status"] == "submitted"
    assert launch["case"] == "hidden-goal/nano-09"
    assert launch["investigator"] == "scripted-blackbox"


def test_the_truth_is_nowhere_in_the_run_before_it_is_scored(played: tuple[Path, list[dict[str, object]]]) -> None:
    folder = RunFolder.open(Path(str(played[1][0]["run_dir"])))
    assert folder.result is not None
    truth = folder.result["truth"]
    assert truth["slots"]["subject"]["value"]
    assert "truth" not in folder.spec
    for event in folder.events():
        assert "truth" not in event.payload
        assert "slots" not in event.payload or event.type == "score"
    # What the brief names, it names alike for every case.
    assert 'nothing_hidden": true' not in json.dumps(folder.events()[0].payload)


def test_the_sandbox_is_stamped(played: tuple[Path, list[dict[str, object]]]) -> None:
    folder = RunFolder.open(Path(str(played[1][0]["run_dir"])))
    stamp = folder.events()[0].payload["sandbox"]["stamp"]
    assert stamp["backend"] == choose_backend().backend.name
    assert folder.spec["isolation"]["backend"] == stamp["backend"]
    assert stamp["env"] == "empty"
    assert folder.result is not None
    assert folder.result["sandbox"] == stamp


def test_runs_and_show(played: tuple[Path, list[dict[str, object]]]) -> None:
    folder, (launch, _) = played
    run_id = str(launch["run_id"])
    (listed,) = map(json.loads, marple("runs", "--json", cwd=folder).stdout.splitlines())
    assert listed["run_id"] == run_id
    assert run_id in marple("runs", cwd=folder).stdout
    shown = marple("show", run_id[:-2], cwd=folder)
    assert "hidden-goal/nano-09 · scripted-blackbox · seed 1 · submitted" in shown.stdout
    assert "truth" in shown.stdout
    record = json.loads(marple("show", run_id, "--json", cwd=folder).stdout)
    assert record["result"]["run_id"] == run_id
    assert record["events"][0]["type"] == "run_start"


def test_resuming_a_finished_run_prints_its_records_again(played: tuple[Path, list[dict[str, object]]]) -> None:
    folder, records = played
    done = marple("resume", str(records[0]["run_id"]), "--json", cwd=folder)
    assert done.returncode == 0
    assert [json.loads(line) for line in done.stdout.splitlines()] == records


def test_tasks(tmp_path: Path) -> None:
    listed = json.loads(marple("tasks", "--suite", "nano", "--json", cwd=tmp_path).stdout)
    assert len(listed) >= 50
    assert {task["kind"] for task in listed} >= {"hidden-goal", "monitor", "trigger", "stop-misalignment"}
    shown = marple("tasks", "show", listed[0]["id"], cwd=tmp_path).stdout
    assert f"# Case {listed[0]['id']}" in shown
    assert "Budget: turns=40, calls=80" in shown


def test_no_runs_yet(tmp_path: Path) -> None:
    assert marple("runs", "--json", cwd=tmp_path).stdout == ""
    assert "marple demo" in marple("runs", cwd=tmp_path).stdout


@pytest.mark.slow
def test_doctor(tmp_path: Path) -> None:
    done = marple("doctor", "--json", cwd=tmp_path)
    findings = {finding["id"]: finding for finding in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert findings["isolation process"]["ok"] is True
    assert findings["OPENAI_API_KEY"]["detail"] in ("present", "not set")
    tests = [name for name in findings if name.startswith("self-test ")]
    assert {"self-test chat", "self-test compare", "self-test battery", "self-test logprobs"} <= set(tests)


def test_the_readme_shows_what_the_demo_prints(played: tuple[Path, list[dict[str, object]]]) -> None:
    """The first case of the demo, with digits masked: another machine may count other numbers of n-grams."""
    folder, (launch, _) = played
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    shown = [_masked(line) for line in marple("show", str(launch["run_id"]), cwd=folder).stdout.splitlines()]
    printed = readme.split("```")[3].split("[... the second model")[0].splitlines()
    kinds = ("plan", "battery", "compare", "hypothesis", "predict", "nothing hidden", "truth", "solved", "forecasts")
    lines = [_masked(line) for line in printed if any(f" {kind} " in f" {line}:"[:17] for kind in kinds)]
    assert len(lines) >= 8
    for line in lines:
        assert any(other.startswith(line.rstrip("…")[:60]) for other in shown), line


def _masked(line: str) -> str:
    return re.sub(r"[0-9]+(\.[0-9]+)?", "#", line.strip())
