"""Tools a worker is given for the tests, as a user would give his own."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from marple.errors import ToolError
from marple.tools.calls import current_call, note, report_progress
from marple.tools.contract import Artifact, Cost, ToolResult, tool


def _works() -> None:
    assert 1 + 1 == 2


def _broken() -> None:
    raise ValueError("2 expected, 3 found in /home/someone/secret.txt")


@tool(rung=1, parallel=True, self_test=_works)
def echo(target, *, seed: int, text: str) -> ToolResult:
    """Give a text back.

    Args:
        text: what is given back.

    Example:
        {"text": "hello"}
    """
    return ToolResult(
        text=text,
        data={"seed": seed, "vocab": target.facts["vocab"], "pair": (1, 2)},
        controls={"none": None},
        cost=Cost(prompt_tokens=3, generated_tokens=4),
        artifacts=(Artifact("plot.png", "image/png", b"\x00\xff"),),
        handles=("v1",),
    )


@tool(rung=1, self_test=_broken)
def wait(target, *, seed: int, seconds: float) -> ToolResult:
    """Sleep.

    Args:
        seconds: how long.

    Example:
        {"seconds": 0.1}
    """
    time.sleep(seconds)
    return ToolResult(text=f"slept {seconds}")


@tool(rung=1, parallel=True)
def steps(target, *, seed: int, count: int, seconds: float = 0.0) -> ToolResult:
    """Take steps, say how many are done, and end when cancelled.

    Args:
        count: how many.
        seconds: how long each takes.

    Example:
        {"count": 3}
    """
    value = seed
    for done in range(count):
        report_progress(done, count, "steps")
        time.sleep(seconds)
        value = (value * 6364136223846793005 + done) % 2**61
    call = current_call()
    assert call is not None
    note("one note")
    note("one note")
    note("another note")
    return ToolResult(text="done", data={"value": value, "fresh": call.fresh})


@tool(rung=1, needs=("sae",))
def with_sae(target, *, seed: int) -> ToolResult:
    """Say which sparse autoencoders are there.

    Example:
        {}
    """
    return ToolResult(text="", data={"names": list(target.saes)})


@tool(rung=1, needs=("corpus",))
def with_corpus(target, *, seed: int) -> ToolResult:
    """Give the corpus back.

    Example:
        {}
    """
    return ToolResult(text=target.corpus.read_text(encoding="utf-8"))


@tool(rung=1)
def inside(target, *, seed: int) -> ToolResult:
    """Say what the worker can see of its own process.

    Example:
        {}
    """
    print("a library prints to standard output")
    subprocess.run([sys.executable, "-c", "print('so does a child')"], check=True)
    return ToolResult(
        text="",
        data={
            "environ": dict(os.environ),
            "directory": str(Path.cwd()),
            "session": os.getsid(0) == os.getpid(),
            "umask": os.umask(0o077),
        },
    )


@tool(rung=1)
def open_each(target, *, seed: int, paths: list[str]) -> ToolResult:
    """Open files and directories for reading.

    Args:
        paths: which.

    Example:
        {"paths": ["/etc/passwd"]}
    """

    def outcome(path: str) -> str:
        try:
            os.close(os.open(path, os.O_RDONLY))
        except OSError as error:
            return error.strerror or ""
        return ""

    return ToolResult(text="", data={path: outcome(path) for path in paths})


@tool(rung=1)
def fail(target, *, seed: int, how: str) -> ToolResult:
    """Fail in a given way.

    Args:
        how: the way.

    Example:
        {"how": "refuse"}
    """
    if how == "refuse":
        raise ToolError("'how' must be another word")
    if how == "bug":
        raise FileNotFoundError(2, "no such file", "/home/someone/secret/name.txt")
    if how == "memory":
        raise MemoryError
    if how == "large":
        return ToolResult(text="x" * 9_000_000)
    if how == "nan":
        return ToolResult(text="", data={"value": float("nan")})
    if how == "artifact":
        return ToolResult(text="", artifacts=(Artifact("../x", "image/png", b""),))
    if how == "surrogate":
        raise ToolError("\ud800")
    if how == "exit":
        raise SystemExit(3)
    if how == "leave":
        os._exit(3)
    return ToolResult(text="did not fail")
