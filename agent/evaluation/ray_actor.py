"""What runs on a Ray cluster: one actor holds one target, and plays that target's samples side by side.

A run folder travels whole: read on the node where it was played, written on the machine of the one who asked, so
that no file system need be shared. An interrupted one travels back with its sample and is gone on with.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from marple.agent.draining import Drain
from marple.agent.evaluation.bench_pool import BenchPool
from marple.agent.evaluation.executor import Update
from marple.agent.evaluation.home import in_own_thread
from marple.agent.evaluation.playing_samples import play_sample
from marple.agent.evaluation.samples import Job, SampleEnd
from marple.errors import StorageError
from marple.traces.durable import storage_errors, sync_directory

__all__ = ["MOST_RUNS", "TargetActor", "pack", "unpack"]

Packed = Mapping[str, bytes]
"""The files of a run folder by their paths in it."""

MOST_RUNS = 256
"""Runs that one actor plays at once."""


class TargetActor:
    """Plays samples on one target; Ray makes an actor of it, and its coroutines run in the actor's event loop."""

    def __init__(self) -> None:
        self._pool: BenchPool | None = None  # belongs to the event loop, which does not run yet
        self._threads = ThreadPoolExecutor(MOST_RUNS, "marple-run")
        self._drain = Drain()
        self._steps: dict[str, str] = {}

    async def play(self, job: Job, begun: Packed) -> tuple[SampleEnd, Packed]:
        """Play a sample in a folder of this node's.

        Args:
            job: its ``runs`` is a folder of the asking machine's and not used here.
            begun: the run folder so far, packed, where it was interrupted; else empty.

        Returns:
            How it ended, and the run folder, packed; empty where there is none.
        """
        with tempfile.TemporaryDirectory(prefix="marple-ray-") as runs:
            if begun:
                await asyncio.to_thread(unpack, begun, Path(runs) / job.run_id)
            self._pool = self._pool or BenchPool()
            here, benches = replace(job, runs=runs), self._pool.of(job.sample.organism)
            try:
                end = await in_own_thread(
                    self._threads, lambda: play_sample(here, benches, hear=self._hear, drain=self._drain)
                )
            finally:
                self._steps.pop(job.sample.key, None)
            return end, await asyncio.to_thread(pack, Path(runs) / job.run_id)

    async def steps(self) -> dict[str, str]:
        """The last step of each sample that has taken one since the last question, by the samples' keys."""
        steps, self._steps = self._steps, {}
        return steps

    async def drain(self, reason: str) -> None:
        """Let all runs stop at their next step."""
        self._drain.ask(reason)

    async def close(self) -> None:
        """End the workers."""
        if self._pool is not None:
            await self._pool.close()

    def _hear(self, update: Update) -> None:
        self._steps[update.job.sample.key] = update.text


def pack(folder: Path) -> Packed:
    """The files of a folder by their paths in it; empty where there is no such folder."""
    if not folder.is_dir():
        return {}
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def unpack(packed: Packed, folder: Path) -> None:
    """Put what `pack` gave at ``folder``, in one step: it is as before or whole, whatever ends this process.

    Raises:
        StorageError: the disk refused it, or a path leads out of the folder.
    """
    beside, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    with storage_errors(folder):
        for left in (beside, old):
            shutil.rmtree(left, ignore_errors=True)
        beside.mkdir(parents=True)
        for name, content in packed.items():
            file = beside / name
            if not file.resolve().is_relative_to(beside.resolve()):
                raise StorageError(f"a run folder came back with a file {name!r}, which is not inside it")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
        if folder.exists():
            folder.rename(old)
        beside.rename(folder)
        sync_directory(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
