"""What a sandbox's memory is, counted from outside, and that too much of it ends the sandbox."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from marple.sandboxes.watchdog import Watchdog, members, memory_of

MIB = 2**20
FILL = f"""
def fill(mib):
    held = bytearray(mib * {MIB})
    for offset in range(0, len(held), 4096):
        held[offset] = 1
    return held
def say():
    print("ready", flush=True)
"""


@contextlib.contextmanager
def running(code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program in a session of its own that has said that it is ready."""
    command = [sys.executable, "-I", "-c", FILL + code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
        finally:
            for pid in members(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def counted(process: subprocess.Popen[bytes]) -> float:
    """MiB of all its processes, as exactly as can be."""
    return memory_of(members(process.pid)) / MIB


def test_children_that_only_share_their_parents_pages_add_little() -> None:
    code = """
import os, time
held = fill(100)
for _ in range(5):
    if os.fork() == 0:
        time.sleep(60)
say()
time.sleep(60)
"""
    with running(code) as process:
        assert len(members(process.pid)) == 6
        assert 100 < counted(process) < 150
        # What is quick counts each process's pages as its own, and is never too little.
        assert memory_of(members(process.pid), more_than=10**12) / MIB > 600


def test_children_that_have_their_own_add_up() -> None:
    code = """
import os, time
heard, told = os.pipe()
for _ in range(4):
    if os.fork() == 0:
        held = fill(50)
        os.write(told, b"1")
        time.sleep(60)
for _ in range(4):
    os.read(heard, 1)
say()
time.sleep(60)
"""
    with running(code) as process:
        assert 200 < counted(process) < 300


@pytest.mark.parametrize(
    "take",
    [
        "import mmap; held = mmap.mmap(-1, 80 * 2**20); held.write(b'1' * (80 * 2**20))",
        "import os; held = os.memfd_create('x'); os.write(held, b'1' * (80 * 2**20))",
        "import tempfile; held = tempfile.TemporaryFile(dir='/dev/shm'); held.write(b'1' * (80 * 2**20)); held.flush()",
    ],
    ids=["shared", "memfd", "unlinked"],
)
def test_memory_that_is_nobodys_own_pages_counts(take: str) -> None:
    with running(f"{take}\nsay()\nimport time; time.sleep(60)") as process:
        assert 80 < counted(process) < 190


def test_a_process_whose_first_thread_has_ended_still_counts() -> None:
    code = """
import ctypes, threading, time
def hold():
    held = fill(80)
    say()
    time.sleep(60)
threading.Thread(target=hold).start()
ctypes.CDLL(None).pthread_exit(None)
"""
    with running(code) as process:
        wait_for(lambda: "State:\tZ" in Path(f"/proc/{process.pid}/status").read_text())
        assert 80 < counted(process) < 130


def test_a_process_that_has_left_its_parents_and_session_is_still_known() -> None:
    code = """
import os, sys, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        say()
        time.sleep(60)
    sys.stdin.readline()
    os._exit(0)
os.wait()
say()
time.sleep(60)
"""
    with running(code) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        known = members(process.pid)
        assert len(known) == 3
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.stdout.readline() == b"ready\n"
        assert len(members(process.pid)) == 1
        left = members(process.pid, known).keys() - {process.pid}
        assert len(left) == 1
        os.kill(left.pop(), signal.SIGKILL)


def wait_for(true: Callable[[], bool], seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_bomb_with_many_children_is_ended() -> None:
    code = """
import os, time
say()
for _ in range(30):
    if os.fork() == 0:
        held = fill(30)
        time.sleep(60)
time.sleep(60)
"""
    with running(code) as process:
        ended: list[int] = []

        def kill() -> None:
            ended.extend(members(process.pid))
            os.killpg(process.pid, signal.SIGKILL)

        watchdog = Watchdog(process.pid, 300 * MIB, kill)
        watchdog.start()
        assert process.wait(timeout=30) == -signal.SIGKILL
        wait_for(lambda: bool(watchdog.exceeded))
        watchdog.stop()
        assert "the limit is 0.29 GiB" in watchdog.exceeded
        assert watchdog.highest > 300 * MIB
        assert len(ended) > 5
        wait_for(lambda: not members(process.pid))


def test_who_stays_below_the_limit_is_left_alone() -> None:
    with running("held = fill(50)\nsay()\nimport time; time.sleep(60)") as process:
        watchdog = Watchdog(process.pid, 200 * MIB, process.kill)
        watchdog.start()
        time.sleep(0.7)
        watchdog.stop()
        assert process.poll() is None
        assert not watchdog.exceeded
        assert 50 * MIB < watchdog.highest < 200 * MIB


def test_where_a_control_group_counts_it_is_asked() -> None:
    with running("say()\nimport time; time.sleep(60)") as process:
        asked: list[bool] = []

        def ran_out() -> bool:
            asked.append(True)
            return len(asked) > 2

        watchdog = Watchdog(process.pid, 200 * MIB, process.kill, out_of_memory=ran_out)
        watchdog.start()
        assert process.wait(timeout=30) == -signal.SIGKILL
        watchdog.stop()
        assert "more than 0.20 GiB" in watchdog.exceeded


def test_it_stops_by_itself_when_the_process_is_gone() -> None:
    with running("say()") as process:
        process.wait()
        watchdog = Watchdog(process.pid, MIB, process.kill)
        watchdog.watch()
        assert not watchdog.exceeded
