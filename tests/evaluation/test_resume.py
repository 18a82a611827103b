"""``marple evaluate`` as a user gives it: from nothing to a report, killed with SIGKILL, and finished."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from marple.agent.evaluation.sample_log import SampleLog
from marple.traces import RunFolder

OPTIONS = ["nano-quick", "--arms", "prior,scripted-blackbox", "--only", "nano-03", "--run-budget", "calls=2"]


def start(out: Path) -> subprocess.Popen[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "marple.cli", "evaluate", *OPTIONS, "--out", str(out), "--json"]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def kinds(path: Path) -> list[str]:
    return [event.type for event in RunFolder.open(path).events()] if (path / "run.json").exists() else []


def kill_at_first_call(process: subprocess.Popen[str], runs: Path) -> tuple[Path, Path]:
    """Kill the process when one run is done and the other has made its first experiment."""
    deadline = time.monotonic() + 300
    while True:
        assert process.poll() is None
        assert time.monotonic() < deadline
        done = [path.parent for path in runs.glob("*/result.json")]
        playing = [path for path in runs.glob("*blackbox*") if "tool_call" in kinds(path)]
        if done and playing:
            process.send_signal(signal.SIGKILL)
            process.wait()
            return done[0], playing[0]
        time.sleep(0.01)


def test_killed_and_finished(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with start(out) as process:
        done, killed = kill_at_first_call(process, out / "runs")
    assert RunFolder.open(killed).result is None
    before = {file: file.read_bytes() for file in done.rglob("*") if file.is_file()}
    calls = [event.payload["call_id"] for event in RunFolder.open(killed).events() if event.type == "tool_call"]

    with start(out) as process:
        said, _ = process.communicate(timeout=300)
    assert process.returncode == 0
    records = [json.loads(line) for line in said.splitlines()]
    assert [record["what"] for record in records] == ["launch", "sample", "done"]
    assert records[0]["left"] == 1
    assert records[1]["run_id"] == killed.name
    assert records[2]["statuses"] == {"submitted": 1, "limit:calls": 1} or records[2]["statuses"] == {"submitted": 2}
    # What was done is as it was, and what was recorded was not done again.
    assert {file: file.read_bytes() for file in done.rglob("*") if file.is_file()} == before
    assert len(list((out / "runs").iterdir())) == 2
    events = RunFolder.open(killed).events()
    again = [event.payload["call_id"] for event in events if event.type == "tool_call"]
    assert again[: len(calls)] == calls
    assert len(set(again)) == len(again)
    assert [event.type for event in events].count("run_resume") == 1
    assert all(state.superseded == () for state in SampleLog(out / "samples.jsonl").states.values())
    assert any(Path(file).name == "report.html" for file in records[2]["report"])
