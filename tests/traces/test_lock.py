"""One writer per run folder; a dead one blocks nobody."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from marple.errors import UsageError
from marple.traces import RunFolder

HOLD = """
import sys
from pathlib import Path
from marple.traces import RunFolder
run = RunFolder.reopen(Path(sys.argv[1]))
print("held", flush=True)
sys.stdin.read()
"""


def holding(path: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def finish(process: subprocess.Popen[str]) -> None:
    process.communicate()


def test_a_second_writer_is_told_the_process_of_the_first(run: RunFolder) -> None:
    with pytest.raises(UsageError, match=f"process {os.getpid()} "):
        RunFolder.reopen(run.path)
    run.close()
    process = holding(run.path)
    try:
        with pytest.raises(UsageError, match=f"process {process.pid} .* is writing"):
            RunFolder.reopen(run.path)
        assert RunFolder.open(run.path).status == "running"
    finally:
        process.kill()
        finish(process)


def test_the_lock_of_a_killed_process_is_taken_over_even_before_it_is_reaped(run: RunFolder) -> None:
    run.close()
    process = holding(run.path)
    process.send_signal(signal.SIGKILL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, but still in the process table

    assert run.status == "interrupted"
    RunFolder.reopen(run.path).close()
    finish(process)


def test_a_reused_process_id_is_not_taken_for_the_holder(run: RunFolder) -> None:
    lock = run.path / "lock"
    held = json.loads(lock.read_text())
    lock.write_text(json.dumps({**held, "started": held["started"] - 1}))

    assert run.status == "interrupted"
    RunFolder.reopen(run.path).close()


def test_a_process_on_another_host_counts_as_alive(run: RunFolder) -> None:
    lock = run.path / "lock"
    lock.write_text(json.dumps({"pid": 1, "started": 1, "host": "elsewhere"}))
    with pytest.raises(UsageError, match=r"process 1 on elsewhere.*delete .*lock"):
        RunFolder.reopen(run.path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_half_written_lock_is_taken_over(run: RunFolder, content: str) -> None:
    run.close()
    (run.path / "lock").write_text(content)
    with RunFolder.reopen(run.path) as again:
        assert again.status == "running"
    assert not (run.path / "lock").exists()


def test_closing_does_not_release_anothers_lock(run: RunFolder) -> None:
    foreign = json.dumps({"pid": 1, "started": 1, "host": "elsewhere"})
    (run.path / "lock").write_text(foreign)
    run.close()
    assert (run.path / "lock").read_text() == foreign


def test_of_many_that_try_at_once_one_wins(run: RunFolder) -> None:
    run.close()

    def attempt(_: int) -> RunFolder | None:
        try:
            return RunFolder.reopen(run.path)
        except UsageError:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [folder for folder in pool.map(attempt, range(32)) if folder]
    assert len(won) == 1
    won[0].close()
