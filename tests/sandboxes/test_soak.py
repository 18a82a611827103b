"""Sandboxes that are started and ended in every way leave nothing behind, and the soak would see it if they did."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from benchmarks import soak
from marple.sandboxes.backend import TOOL_WORKER, Limits, Program, find_backends
from marple.sandboxes.process import BACKEND, WorkerProcess

SCRIPT = Path(soak.__file__)


@pytest.mark.parametrize("name", sorted(find_backends()))
def test_two_dozen_sandboxes_leave_nothing(name: str, tmp_path: Path) -> None:
    status = find_backends()[name].probe()
    if not status.available:
        assert "CI" not in os.environ, f"{name} must be there: {status.reason}"
        pytest.skip(f"{name}: {status.reason}")
    command = [sys.executable, str(SCRIPT), "--backend", name, "--cycles", "24", "--seed", "1"]
    # A process of its own: it makes itself the reaper of orphans.
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=300, env={**os.environ, "TMPDIR": str(tmp_path)}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "24 cycles" in done.stdout
    assert list(tmp_path.glob("*/*")) == []  # the directory that holds all of a user's may stay, empty


@dataclass(frozen=True)
class Leaky:
    """A backend that leaves something of each kind."""

    scratch: Path
    name: str = "leaky"
    preference: int = 0
    contains_code: bool = False

    def probe(self) -> Any:
        return BACKEND.probe()

    async def launch(self, root: Path, limits: Limits, program: Program = TOOL_WORKER) -> WorkerProcess:
        (self.scratch / f"left-{root.name}").mkdir()
        os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "600")
        os.dup(0)
        return await BACKEND.launch(root, limits, program)


async def test_what_is_left_is_seen(tmp_path: Path) -> None:
    backend = Leaky(tmp_path)
    before = soak.look(tmp_path, {os.getpid()}, docker=False)
    await soak.cycle(backend, tmp_path, random.Random(0), "closed", {os.getpid()})
    left = soak.look(tmp_path, {os.getpid()}, docker=False).more_than(before)
    for line in left.get("processes", []):
        os.kill(int(line.split()[0]), signal.SIGKILL)
        os.waitpid(int(line.split()[0]), 0)
    assert {"processes", "files", "descriptors"} <= left.keys()
    os.close(int(left["descriptors"][0].split()[0]))
