"""The Ray executor on a real cluster of processes on this machine: the table of ``local``, and what survives."""

from __future__ import annotations

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from marple.agent.evaluation.ray_actor import pack, unpack
from marple.agent.evaluation.ray_executor import Takes
from marple.errors import StorageError, UsageError

PATIENCE = 400
"""Seconds that anything may take on a busy machine."""

pytestmark = pytest.mark.timeout(3 * PATIENCE)

VARYING = ("seconds", "target_tokens")
"""Of a row: the clock, and tokens, since a reply's last digits depend on what else is in the engine's batch."""


def command(out: Path, executor: str, *options: str) -> list[str]:
    arms = ["--arms", "prior,scripted-blackbox", "--epochs", "1", "--run-budget", "calls=2"]
    return [sys.executable, "-m", "marple.cli", "evaluate", "nano-quick", *arms, "--executor", executor,
            "--only", "nano-0[79]", "--out", str(out), *options]  # fmt: skip


def rows(out: Path) -> dict[str, dict[str, str]]:
    """The table of what was played, by key."""
    with (out / "samples.csv").open() as file:
        played = [row for row in csv.DictReader(file) if row["run"]]
    return {row["key"]: {name: value for name, value in row.items() if name not in VARYING} for row in played}


def finished(out: Path) -> set[str]:
    """Runs that have a result."""
    return {path.parent.name for path in out.glob("runs/*/result.json")}


def results(out: Path) -> dict[str, bytes]:
    """What stands in them; a run that is played again has another clock."""
    return {name: (out / "runs" / name / "result.json").read_bytes() for name in finished(out)}


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a cluster of the test's own; nothing of it is left."""
    folder = f"/tmp/ray-{os.getpid()}-{time.monotonic_ns() % 10**6}"  # Ray's sockets need a short path
    environment = {**os.environ, "RAY_TMPDIR": folder, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    yield environment
    wait(lambda: not processes_of(folder))


def processes_of(folder: str) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if any(folder in word for word in process.cmdline()) or process.environ().get("RAY_TMPDIR") == folder:
                found.append(process)
    return found


def wait(come: Callable[[], object]) -> object:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := come():
            return found
        time.sleep(0.2)
    raise AssertionError(f"not within {PATIENCE} s")


def actors(folder: str) -> list[psutil.Process]:
    return [process for process in processes_of(folder) if "ray::TargetActor" in " ".join(process.cmdline()[:1])]


def test_the_table_is_that_of_the_local_executor(tmp_path: Path, alone: dict[str, str]) -> None:
    for executor in ("ray", "local"):
        done = subprocess.run(
            command(tmp_path / executor, executor), env=alone, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr
    assert rows(tmp_path / "ray") == rows(tmp_path / "local")
    assert len(rows(tmp_path / "ray")) == 4


def test_a_killed_actor_and_a_killed_driver_lose_no_finished_sample(tmp_path: Path, alone: dict[str, str]) -> None:
    out = tmp_path / "out"
    said = tmp_path / "said"
    with (
        said.open("w") as stdout,
        subprocess.Popen(
            command(out, "ray", "--max-targets", "1", "--json"), env=alone, stdout=stdout, stderr=subprocess.DEVNULL
        ) as driver,
    ):
        actor = wait(lambda: next(iter(actors(alone["RAY_TMPDIR"])), None))
        assert isinstance(actor, psutil.Process)
        wait(lambda: finished(out))
        before_actor = finished(out)
        with contextlib.suppress(psutil.NoSuchProcess):
            actor.kill()
        wait(lambda: finished(out) - before_actor or driver.poll() is not None)
        driver.send_signal(signal.SIGKILL)
    kept = results(out)
    assert before_actor <= kept.keys()
    # What Ray has to say of the actor that died is not among the records.
    assert {json.loads(line)["what"] for line in said.read_text().splitlines()} <= {"launch", "sample"}
    wait(lambda: not processes_of(alone["RAY_TMPDIR"]))
    done = subprocess.run(command(out, "ray", "--max-targets", "1"), env=alone, capture_output=True, timeout=PATIENCE)
    assert done.returncode == 0, done.stderr
    assert kept.items() <= results(out).items()
    assert len(rows(out)) == 4
    assert all(row["status"] == "submitted" or row["status"].startswith("limit") for row in rows(out).values())


def test_a_cluster_without_what_is_asked_for_is_told_before_anything_is_played(
    tmp_path: Path, alone: dict[str, str]
) -> None:
    asked = {**alone, "MARPLE_RAY_GPUS": "8"}
    done = subprocess.run(command(tmp_path / "out", "ray"), env=asked, capture_output=True, text=True, timeout=PATIENCE)
    assert done.returncode == 2
    assert "MARPLE_RAY_GPUS" in done.stderr
    assert not finished(tmp_path / "out")


@pytest.mark.parametrize(("name", "value"), [("MARPLE_RAY_CPUS", "many"), ("MARPLE_RAY_GPUS", "-1")])
def test_an_amount_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=name):
        Takes.from_environment()


def test_as_many_targets_are_held_as_fit() -> None:
    assert Takes(cpus=2, gpus=1).fits({"CPU": 16, "GPU": 3}) == 3
    assert Takes(cpus=2).fits({"CPU": 5}) == 2
    with pytest.raises(UsageError, match="0 GPUs"):
        Takes(gpus=1).fits({"CPU": 5})


def test_a_run_folder_travels_whole(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "blobs").mkdir(parents=True)
    (folder / "blobs" / "a").write_bytes(b"\0\1")
    (folder / "events.jsonl").write_text("{}\n")
    packed = pack(folder)
    (folder / "events.jsonl").write_text("older\n")
    unpack(packed, folder)
    assert json.loads((folder / "events.jsonl").read_text()) == {}
    assert (folder / "blobs" / "a").read_bytes() == b"\0\1"
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert pack(tmp_path / "none") == {}


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "blobs/../../outside"])
def test_a_file_that_would_lie_outside_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match="not inside"):
        unpack({name: b"x"}, tmp_path / "runs" / "run")
    assert not list(tmp_path.rglob("outside"))
    assert not (tmp_path / "runs" / "run").exists()
