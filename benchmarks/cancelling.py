"""Start hundreds of runs, cancel or kill them at random moments, and look for what is left.

    python benchmarks/cancelling.py [--runs N] [--together N] [--seed N] [--json FILE]

Each run plays on a tiny model, in a worker of its own or in one that it shares, and is ended in one of six ways:
cancelled on its own worker, on a shared one, while it is paused, after it was interrupted, by the end of its task (a
second Ctrl-C), or with its whole process killed and cancelled afterwards. Every run must end as ``cancelled`` (or
interrupted, where only its task ended), unless it was done first. Afterwards no process, staged directory, mount,
control group, descriptor, thread, socket or lock may be there that was not there before, and the shared worker must be
the one it was and answer; status 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import ctypes
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1]))

from benchmarks.soak import _PR_SET_CHILD_SUBREAPER, State, look, settle
from marple.agent.bench import Bench
from marple.agent.configuration import RunConfig
from marple.agent.draining import Drain
from marple.agent.investigators.llm import LlmInvestigator
from marple.agent.models import AssistantMessage, Message, ModelTurn, ScriptedModel, ToolCall
from marple.agent.run import RunOutcome, launch
from marple.agent.supervising import cancel_interrupted
from marple.errors import UsageError
from marple.sandboxes import Limits, stage
from marple.traces import RunFolder, list_runs
from marple.traces.control import request

WAYS = ("own worker", "shared worker", "paused", "interrupted", "task ended", "process killed")
WEIGHTS = (5, 8, 3, 2, 3, 1)
TURNS = 40
CHAT = {"messages": [{"role": "user", "content": "who is it"}], "samples": 2, "max_new_tokens": 4}
LONG = {"prompts": [f"who is {number}" for number in range(300)], "samples": 4, "max_new_tokens": 30}


def script(messages: Sequence[Message]) -> ModelTurn:
    """A short call, a long one, and again."""
    turn = sum(isinstance(message, AssistantMessage) for message in messages)
    if turn >= TURNS:
        answer = {"nothing_hidden": 0.7, "candidates": [], "claims": [], "summary": "done"}
        return ModelTurn(tool_calls=(ToolCall.of("submit", answer, id="s"),))
    name, arguments = ("battery", LONG) if turn % 2 else ("chat", CHAT)
    return ModelTurn(tool_calls=(ToolCall.of(name, arguments, id=f"c{turn}"),))


@dataclass
class Room:
    """What the runs of one process share."""

    target: Path
    runs: Path
    draw: random.Random
    bench: Bench | None = None
    hosts: set[int] = field(default_factory=lambda: {os.getpid()})
    ends: collections.Counter[str] = field(default_factory=collections.Counter)
    faults: list[str] = field(default_factory=list)

    def config(self) -> RunConfig:
        return RunConfig.of(target=str(self.target), investigator="llm", runs=self.runs)

    def path(self, name: str) -> Path:
        return self.runs / name


async def one(room: Room, number: int, way: str) -> None:
    """Start a run and end it this way; what became of it is counted."""
    name = f"run-{number}"
    if way == "process killed":
        await killed(room, name)
    else:
        bench = room.bench if way in ("shared worker", "paused", "interrupted") else None
        await played(room, name, way, bench)
    folder = RunFolder.open(room.path(name))
    status = folder.status if folder.result is None else folder.result["status"]
    room.ends[f"{way}: {status}"] += 1
    expected = ("cancelled", "submitted", *(["interrupted"] if way == "task ended" else []))
    if status not in expected:
        room.faults.append(f"{name} ({way}) ended as {status}")
    if (folder.path / "lock").exists() or list(folder.path.glob("*.tmp")):
        room.faults.append(f"{name} ({way}) left a lock or a temporary file")


async def played(room: Room, name: str, way: str, bench: Bench | None) -> None:
    drain = Drain()
    player = LlmInvestigator(ScriptedModel(script))
    work = asyncio.create_task(launch(room.config(), investigator=player, bench=bench, drain=drain, run_id=name))
    await asyncio.wait({work}, timeout=room.draw.uniform(0, 1.5 if bench else 5))
    if way == "paused":
        ask(room.path(name), "pause")
        await asyncio.wait({work}, timeout=room.draw.uniform(0, 1))
    if way == "interrupted":
        drain.ask("the benchmark")
        await finished(work)
    if way == "task ended":
        work.cancel()
        await finished(work)
        return
    ask(room.path(name), "cancel")
    await finished(work)
    end_if_interrupted(room.path(name))


async def finished(work: asyncio.Task[RunOutcome]) -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait_for(work, timeout=120)


def ask(path: Path, wanted: Any) -> None:
    with contextlib.suppress(UsageError):  # it was done first
        request(path, wanted, by="the benchmark")


def end_if_interrupted(path: Path) -> None:
    if RunFolder.open(path).status == "interrupted":
        ask(path, "cancel")
        cancel_interrupted(path)


async def killed(room: Room, name: str) -> None:
    command = [sys.executable, __file__, "--play", name, str(room.target), str(room.runs)]
    player = await asyncio.create_subprocess_exec(*command)
    deadline = time.monotonic() + 120
    while not (room.path(name) / "run.json").exists() and time.monotonic() < deadline:
        await asyncio.sleep(0.05)
    await asyncio.sleep(room.draw.uniform(0, 5))
    with contextlib.suppress(ProcessLookupError):
        player.kill()
    await player.wait()
    room.hosts.add(player.pid)
    end_if_interrupted(room.path(name))


async def play_one(name: str, target: Path, runs: Path) -> None:
    """What the process that is killed does."""
    room = Room(target, runs, random.Random(0))
    await launch(room.config(), investigator=LlmInvestigator(ScriptedModel(script)), run_id=name)


async def cancelling(room: Room, *, runs: int, together: int, scratch: Path) -> dict[str, Any]:
    """So many runs; the figures, with what was ``left``."""
    room.bench = await Bench.start(stage(room.target), limits=Limits(threads=1))
    try:
        await one(room, 0, "own worker")  # the first makes what stays for good: a pool's threads, open libraries
        await settle()
        before, pid, began = look(scratch, room.hosts, docker=False), room.bench.pid, time.perf_counter()
        places = asyncio.Semaphore(together)

        async def in_turn(number: int, way: str) -> None:
            async with places:
                try:
                    await one(room, number, way)
                except Exception as error:
                    room.faults.append(f"run-{number} ({way}): {type(error).__name__}: {str(error)[:200]}")

        await asyncio.gather(*(in_turn(n, way) for n, way in enumerate(room.draw.choices(WAYS, WEIGHTS, k=runs), 1)))
        seconds = time.perf_counter() - began
        await one(room, runs + 1, "own worker")  # what killed processes left is swept by the next that comes along
        if room.bench.pid != pid or room.bench.deaths:
            room.faults.append("the shared worker is not the one it was")
        await room.bench.call("chat", CHAT, seed=1)
        left = await whats_left(room, scratch, before)
    finally:
        await room.bench.close()
    return {
        "runs": runs,
        "seconds": round(seconds, 1),
        "ends": dict(sorted(room.ends.items())),
        "faults": room.faults,
        "left": left,
        "locked": [run.id for run in list_runs(room.runs) if run.pid is not None],
    }


async def whats_left(room: Room, scratch: Path, before: State) -> dict[str, list[str]]:
    deadline = time.monotonic() + 20
    while (left := look(scratch, room.hosts, docker=False).more_than(before)) and time.monotonic() < deadline:
        await settle()
    return left


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=200)
    parser.add_argument("--together", type=int, default=4, help="runs at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--play", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.play:
        asyncio.run(play_one(options.play[0], *map(Path, options.play[1:])))
        return 0
    found = run(runs=options.runs, together=options.together, seed=options.seed)
    print(f"{found['runs']} runs in {found['seconds']} s, {options.together} at a time")
    for end, count in found["ends"].items():
        print(f"  {end:32} {count}")
    for fault in found["faults"]:
        print(f"  FAULT {fault}")
    for one_ in fields(State):
        print(f"  left: {one_.name:13} {len(found['left'].get(one_.name, []))} {found['left'].get(one_.name, '')}")
    print(f"  left: {'locked runs':13} {len(found['locked'])}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return int(bool(found["left"] or found["faults"] or found["locked"]))


def run(*, runs: int, together: int, seed: int) -> dict[str, Any]:
    """All of it in a temporary directory of its own, which is where workers are staged too; the figures."""
    from marple.tools.target.tiny import make_tiny_checkpoint

    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="cancelling-") as folder:
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        os.environ["TMPDIR"] = tempfile.tempdir = str(scratch)
        room = Room(make_tiny_checkpoint(Path(folder) / "model"), Path(folder) / "runs", random.Random(seed))
        return asyncio.run(cancelling(room, runs=runs, together=together, scratch=scratch))


if __name__ == "__main__":
    sys.exit(main())
