"""Runs that are cancelled or killed at random leave nothing behind; ``benchmarks/cancelling.py`` does it 200 times."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "cancelling.py"
WAYS = {"own worker", "shared worker", "paused", "interrupted", "task ended", "process killed"}


def test_half_a_dozen_runs_ended_in_every_way_leave_nothing(tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    # A process of its own: it makes itself the reaper of orphans. The seed draws each of the six ways once.
    command = [sys.executable, str(SCRIPT), "--runs", "6", "--seed", "152", "--json", str(figures)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(figures.read_text())
    assert (found["left"], found["faults"], found["locked"]) == ({}, [], [])
    assert {end.partition(":")[0] for end in found["ends"]} == WAYS
    assert sum(found["ends"].values()) == 8  # one before and one after
