"""A run that is killed with SIGKILL, again and again, and resumed, loses nothing and doubles nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from marple.traces import RunFolder

SCRIPT = Path(__file__).with_name("scripted_run.py")


def start(*arguments: object) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen([sys.executable, str(SCRIPT), *map(str, arguments)], env=environment)


def lines(runs: Path) -> int:
    return sum(path.read_bytes().count(b"\n") for path in runs.glob("*/events.jsonl"))


def kill_after(process: subprocess.Popen[bytes], runs: Path, count: int) -> None:
    """Kill the process as soon as ``count`` more events are on disk, or when it has ended by itself."""
    goal = lines(runs) + count
    deadline = time.monotonic() + 120
    while process.poll() is None and lines(runs) < goal:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_killed_four_times_and_resumed(tiny: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    kill_after(start("start", tiny, runs), runs, 9)
    (path,) = runs.iterdir()
    for count in (12, 17, 23):
        assert RunFolder.open(path).status == "interrupted"
        kill_after(start("resume", path), runs, count)
    assert start("resume", path).wait(timeout=120) == 0

    folder = RunFolder.open(path)
    assert folder.result is not None
    assert folder.result["status"] == "submitted"
    events = folder.events()
    calls = [(e.payload["turn_number"], e.payload["index"]) for e in events if e.type == "tool_call"]
    assert sorted(calls) == [(turn, index) for turn in range(1, 13) for index in (0, 1)] + [(13, 0)]
    turns = [e.payload["turn_number"] for e in events if e.type == "model_call"]
    assert turns == list(range(1, 14))
    assert [e.payload["id"] for e in events if e.type == "hypothesis"] == [f"H{n}" for n in range(1, 13)]
    ends = Counter(e.type for e in events)
    assert [ends[kind] for kind in ("answer", "score", "run_end", "run_start", "run_resume")] == [1, 1, 1, 1, 4]
    # Whatever was begun twice says so.
    begun = Counter(str(e.payload.get("call") or e.payload.get("model_turn")) for e in events if e.type == "call_start")
    for event in events:
        if event.type == "tool_call":
            assert event.payload["attempt"] == begun[str([event.payload["turn_number"], event.payload["index"]])]
