"""What isolation costs: start to first reply and one round trip of each backend, beside the ``process`` backend's.

The program inside echoes frames and imports nothing, so that the figures are the sandbox's own; what a whole worker's
start takes on each backend is measured by ``benchmarks/worker.py --backend NAME``.
"""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

from benchmarks.plan import Plan
from benchmarks.rounds import estimate
from benchmarks.table import Row, Target
from marple.sandboxes import Limits, backends
from marple.sandboxes.backend import Backend, Launched, Program, find_backends
from marple.sandboxes.scratch import claim_scratch

__all__ = ["isolation_rows"]

ECHO = """
import os
while head := os.read(0, 4):
    left = int.from_bytes(head, "big")
    body = b""
    while len(body) < left:
        body += os.read(0, left - len(body))
    os.write(1, head + body)
"""
LIMITS = Limits(device="cpu", threads=1)
FLOOR = "process"
TARGETS = {"bubblewrap": (0.100, 0.2e-3), "docker": (0.600, 1e-3)}
"""Seconds that a start and a call may take beyond those of ``process``."""


def isolation_rows(plan: Plan) -> list[Row]:
    """Two rows for each backend that works here; one that does not has a row that says why."""
    known = {name: status for name, status in backends().items() if name in (FLOOR, *TARGETS)}
    working = {name: find_backends()[name] for name, status in known.items() if status.available}
    with tempfile.TemporaryDirectory() as folder:
        program = Program("echo", script=Path(folder) / "echo.py")
        (Path(folder) / "echo.py").write_text(ECHO)
        rounds = asyncio.run(_rounds(working, program, plan.rounds_of(2), calls=30 if plan.rounds < 3 else 300))
    rows = []
    for name in TARGETS:
        if name in working:
            rows += _rows(name, rounds)
        else:
            reason = known[name].reason if name in known else "there is no such backend"
            rows.append(Row(f"{name}: start and call beyond {FLOOR}", "ms", missing=reason[:200]))
    return rows


_Round = dict[str, tuple[float, float]]
"""Seconds of a start and of a call by the name of the backend."""


def _rows(name: str, rounds: list[_Round]) -> list[Row]:
    rows = []
    for place, what in enumerate(("start to first reply", "round trip of 100 bytes")):
        beyond = estimate([one[name][place] - one[FLOOR][place] for one in rounds])
        floor = statistics.median(one[FLOOR][place] for one in rounds)
        row = Row(
            f"{name}: {what}, beyond {FLOOR}",
            "ms",
            floor=0.0,
            floor_is=f"{FLOOR}: {floor * 1e3:.3g} ms",
            rounds=len(rounds),
            seconds={name: statistics.median(one[name][place] for one in rounds), FLOOR: floor},
            note="by the wall clock",
        )
        rows.append(row.set(beyond, Target(TARGETS[name][place] * 1e3), scale=1e3))
    return rows


async def _rounds(working: dict[str, Backend], program: Program, count: int, *, calls: int) -> list[_Round]:
    rounds: list[_Round] = []
    names = list(working)
    for number in range(count + 1):
        order = names[number % len(names) :] + names[: number % len(names)]
        rounds.append({name: await _measure(working[name], program, calls) for name in order})
    # The first warms the page cache.
    return rounds[1:]


async def _measure(backend: Backend, program: Program, calls: int) -> tuple[float, float]:
    began = time.perf_counter()
    async with _started(backend, program) as launched:
        await _echo(launched)
        start = time.perf_counter() - began
        spent = []
        for _ in range(calls):
            began = time.perf_counter()
            await _echo(launched)
            spent.append(time.perf_counter() - began)
    return start, statistics.median(spent)


async def _echo(launched: Launched) -> None:
    body = b'"' + b"x" * 98 + b'"'
    launched.send(len(body).to_bytes(4, "big") + body)
    if await launched.replies.readexactly(104) != len(body).to_bytes(4, "big") + body:
        raise AssertionError("the echo is another")


@contextlib.asynccontextmanager
async def _started(backend: Backend, program: Program) -> AsyncIterator[Launched]:
    scratch = claim_scratch()
    (scratch.path / "cache").mkdir()
    (scratch.path / "target").mkdir()
    try:
        launched = await backend.launch(scratch.path, LIMITS, program)
        try:
            yield launched
        finally:
            launched.kill()
            await launched.wait()
            launched.close()
    finally:
        scratch.remove()
