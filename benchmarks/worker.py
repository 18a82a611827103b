"""What a worker process costs: staging, its start, and one call there and back beyond the work.

    python benchmarks/worker.py [--json FILE] [--model DIR] [--starts N] [--calls N] [--backend B]

The floor is a child process that echoes bytes over the same two pipes without any protocol.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from marple.sandboxes import Limits, StagedTarget, Worker, stage, start_worker

TOOL = '''
from marple.tools.contract import ToolResult, tool

@tool(rung=1)
def nothing(target, *, seed: int, text: str = "") -> ToolResult:
    """Do nothing.

    Args:
        text: given back.

    Example:
        {"text": "x"}
    """
    return ToolResult(text=text)
'''
ECHO = "import os\nwhile data := os.read(0, 65536): os.write(1, data)"
LIMITS = Limits(threads=1, device="cpu")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--model", type=Path, help="a model directory; a tiny random Llama if not given")
    parser.add_argument("--starts", type=int, default=3)
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--backend", default="auto", help="isolation backend")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        values = figures(asyncio.run(sample(options, Path(folder))))
    table = Table("figure", "value", title="The worker process")
    for name, value in values.items():
        table.add_row(name, f"{value:.3g}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps(values, indent=2) + "\n")


@dataclass(frozen=True)
class Samples:
    """Seconds, one for each repetition."""

    staging: float
    starts: list[float]
    one: list[float]
    """One call at a time, of a tool that does nothing."""
    large: list[float]
    """The same with 10 kB there and back."""
    together: float
    """For each of many calls that are outstanding at once."""
    floor: list[float]
    """Bytes echoed by a child process over the same two pipes."""


async def sample(options: argparse.Namespace, folder: Path) -> Samples:
    model = options.model or tiny(folder / "model")
    tool = folder / "nothing.py"
    tool.write_text(TOOL)
    began = time.perf_counter()
    with stage(model, plugins=[tool]) as staged:
        staging = time.perf_counter() - began
        started = [await start(staged, options.backend) for _ in range(options.starts)]
        worker = await start_worker(staged, backend=options.backend, limits=LIMITS)
        async with worker:
            one = await round_trips(worker, options.calls, "x")
            large = await round_trips(worker, options.calls, "x" * 10_000)
            together = await burst(worker, options.calls)
    floor = await asyncio.to_thread(pipe_floor, options.calls)
    return Samples(staging, started, one, large, together, floor)


def figures(samples: Samples) -> dict[str, float]:
    return {
        "staging, s": samples.staging,
        "start to first reply, s, median": statistics.median(samples.starts),
        "one call, ms, median": statistics.median(samples.one) * 1e3,
        "one call, ms, 95th percentile": statistics.quantiles(samples.one, n=20)[-1] * 1e3,
        "one call with 10 kB there and back, ms, median": statistics.median(samples.large) * 1e3,
        "one of many outstanding calls, ms": samples.together * 1e3,
        "floor: 200 bytes echoed over the same pipes, ms, median": statistics.median(samples.floor) * 1e3,
    }


def tiny(path: Path) -> Path:
    # In a process of its own, so that what is measured here does not have torch in memory.
    code = "import sys, pathlib; from marple.tools.target.tiny import make_tiny_checkpoint as make; "
    subprocess.run([sys.executable, "-c", code + "make(pathlib.Path(sys.argv[1]))", str(path)], check=True)
    return path


async def start(staged: StagedTarget, backend: str) -> float:
    began = time.perf_counter()
    worker = await start_worker(staged, backend=backend, limits=LIMITS)
    async with worker:
        await worker.call("nothing", {}, seed=0)
        return time.perf_counter() - began


async def round_trips(worker: Worker, calls: int, text: str) -> list[float]:
    spent = []
    for seed in range(calls):
        began = time.perf_counter()
        await worker.call("nothing", {"text": text}, seed=seed)
        spent.append(time.perf_counter() - began)
    return spent


async def burst(worker: Worker, calls: int) -> float:
    began = time.perf_counter()
    await asyncio.gather(*(worker.call("nothing", {}, seed=seed) for seed in range(calls)))
    return (time.perf_counter() - began) / calls


def pipe_floor(calls: int) -> list[float]:
    spent = []
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "bufsize": 0}
    with subprocess.Popen([sys.executable, "-I", "-c", ECHO], **pipes) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        for _ in range(calls):
            began = time.perf_counter()
            child.stdin.write(b"x" * 200)
            child.stdout.read(200)
            spent.append(time.perf_counter() - began)
        child.stdin.close()
    return spent


if __name__ == "__main__":
    main()
