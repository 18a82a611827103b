"""Row 8: sixteen investigators who share one target in one worker process, beside the same one after the other."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.models import Model
from benchmarks.plan import Plan
from benchmarks.rounds import estimate
from benchmarks.table import Row, Target
from marple.sandboxes import Limits, Worker, stage, start_worker

__all__ = ["investigator_rows"]

CLIENTS = 16
TURNS = 2


@dataclass(frozen=True)
class Script:
    """What one investigator says; each reply is put into the conversation before the next turn."""

    turns: tuple[str, ...]
    new: int
    seed: int


def investigator_rows(plan: Plan) -> list[Row]:
    """Throughput of conversations through one real worker process."""
    return asyncio.run(_measure(plan))


async def _measure(plan: Plan) -> list[Row]:
    model = plan.model
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "model"
        model.plain.save_pretrained(checkpoint)
        model.tokenizer.save_pretrained(checkpoint)
        dtype = str(model.dtype).removeprefix("torch.")
        with stage(checkpoint) as staged:
            limits = Limits(threads=1, device=model.device, dtype=dtype)
            async with await start_worker(staged, limits=limits) as worker:
                return [await _compare(plan, worker)]


async def _compare(plan: Plan, worker: Worker) -> Row:
    scripts = _scripts(plan, new=plan.work.new // 4)
    apart, together = await _one_after_the_other(worker, scripts), await _at_once(worker, scripts)
    same = sum(one == other for one, other in zip(apart, together, strict=True)) / CLIENTS
    # In 16 bits two sums in another order differ, and near ties then break either way.
    if plan.model.dtype == torch.float32 and same < 1:
        raise AssertionError("investigators who share a worker hear other replies than one after the other")
    rounds = plan.rounds_of(0.25)
    wall: dict[str, list[float]] = {"apart": [], "together": []}
    cpu: dict[str, list[float]] = {"apart": [], "together": []}
    for number in range(rounds):
        ways = [("apart", _one_after_the_other), ("together", _at_once)]
        for name, way in ways if number % 2 else reversed(ways):
            # Other words every time: what was said before would come from the cache.
            scripts = _scripts(plan, new=2 * plan.work.new)
            began, used = time.perf_counter(), _processor_seconds(worker.pid)
            await way(worker, scripts)
            wall[name].append(time.perf_counter() - began)
            cpu[name].append(_processor_seconds(worker.pid) - used)
    faster = estimate([apart / together for apart, together in zip(wall["apart"], wall["together"], strict=True)])
    row = Row(
        f"{CLIENTS} investigators on one target, {TURNS} chat turns of {2 * plan.work.new} new tokens each",
        "x faster",
        floor=1.0,
        floor_is="one after the other",
        wall=faster.median,
        rounds=rounds,
        seconds={"one after the other": statistics.median(wall["apart"]), "ours": statistics.median(wall["together"])},
        checked=f"investigators who hear the same as alone: {same:.0%}",
        note="by the wall clock",
    )
    if min(cpu["together"]) > 0:
        ratio = estimate([apart / together for apart, together in zip(cpu["apart"], cpu["together"], strict=True)])
        row.note += f"; by the worker's processor time {ratio.median:.2f}"
    return row.set(faster, Target(4.0, "at least"))


async def _at_once(worker: Worker, scripts: Sequence[Script]) -> list[list[str]]:
    return list(await asyncio.gather(*(_play(worker, script) for script in scripts)))


async def _one_after_the_other(worker: Worker, scripts: Sequence[Script]) -> list[list[str]]:
    return [await _play(worker, script) for script in scripts]


async def _play(worker: Worker, script: Script) -> list[str]:
    messages: list[dict[str, str]] = []
    replies = []
    for turn in script.turns:
        messages.append({"role": "user", "content": turn})
        arguments = {"messages": messages, "temperature": 0.0, "max_new_tokens": script.new}
        result = await worker.call("chat", arguments, seed=script.seed, fresh=True)
        replies.append(str(result.data["replies"][0]["text"]))
        messages.append({"role": "assistant", "content": replies[-1]})
    return replies


def _scripts(plan: Plan, *, new: int) -> list[Script]:
    model, work = plan.model, plan.work
    return [
        Script(
            tuple(_words(model, model.number(work.prompt // 4, work.prompt)) for _ in range(TURNS)),
            new=new,
            seed=at,
        )
        for at in range(CLIENTS)
    ]


def _words(model: Model, count: int) -> str:
    return str(model.tokenizer.decode(model.prompts(1, count)[0]))


def _processor_seconds(pid: int | None) -> float:
    """User and system time of a process so far; 0 where the system does not tell."""

    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        return 0.0
