"""``marple tail`` follows a run of another process and ends with it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.talking import begin, call, result, talk


def started(*arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-u", "-m", "marple.cli", "tail", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def read_until(process: subprocess.Popen[str], words: str) -> str:
    assert process.stdout is not None
    timer = threading.Timer(60, process.kill)
    timer.start()
    said = ""
    try:
        for line in process.stdout:
            said += line
            if words in line:
                return said
    finally:
        timer.cancel()
    raise AssertionError(f"{words!r} was not said: {said}")


def test_events_come_as_they_are_written_and_the_end_ends_it(tmp_path: Path) -> None:
    with begin(tmp_path, "a") as folder:
        folder.append("plan", {"proxy": "old plan"})
        process = started("a", "--runs", tmp_path, "--from", "E2", "--silent", "0.5")
        try:
            assert "start" not in read_until(process, "old plan")
            assert "lives" in read_until(process, "silent since")
            folder.append("control", {"did": "pause", "by": "somebody"})
            read_until(process, "asked for by somebody")
            folder.append("tool_call", call("chat", {}, "a \x1b[31mred\x1b[0m reply", turn=1), role="target")
            assert "\\u001b[31mred" in read_until(process, "chat")
            folder.write_result(result())
            folder.close()
            assert "submitted" in read_until(process, "run        ")
            assert process.wait(timeout=30) == 3  # it has no answer
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


@pytest.mark.parametrize(
    ("finish", "code", "words"),
    [
        (lambda folder: None, 130, "marple resume"),
        (lambda folder: folder.write_result(result("cancelled")), 3, "cancelled"),
    ],
)
def test_a_run_that_is_over_is_told_of_at_once(
    tmp_path: Path, finish: Callable[[object], None], code: int, words: str
) -> None:
    with begin(tmp_path, "a") as folder:
        finish(folder)
    said = talk("tail", "a", "--runs", tmp_path)
    assert (said.code, words in said.out) == (code, True)


def test_an_event_that_is_none_is_refused(tmp_path: Path) -> None:
    begin(tmp_path, "a").close()
    said = talk("tail", "a", "--runs", tmp_path, "--from", "two")
    assert (said.code, "'two' is not the id" in said.err) == (2, True)
