"""What runs on a Ray cluster: one actor holds one target, and plays that target's samples side by side.

A run folder travels whole: packed on the node where it was played, unpacked on the machine of the one who asked, so
that no file system need be shared. An interrupted one travels back with its sample and is gone on with.
"""

from __future__ import annotations

import asyncio
import io
import shutil
import tarfile
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from marple.agent.draining import Drain
from marple.agent.evaluation.bench_pool import BenchPool
from marple.agent.evaluation.executor import Update
from marple.agent.evaluation.home import in_own_thread
from marple.agent.evaluation.playing_samples import play_sample
from marple.agent.evaluation.samples import Job, SampleEnd
from marple.traces.durable import storage_errors, sync_directory

__all__ = ["MOST_RUNS", "TargetActor", "pack", "unpack"]

MOST_RUNS = 256
"""Runs that one actor plays at once."""


class TargetActor:
    """Plays samples on one target; Ray makes an actor of it, and its coroutines run in the actor's event loop."""

    def __init__(self) -> None:
        self._pool: BenchPool | None = None  # belongs to the event loop, which does not run yet
        self._threads = ThreadPoolExecutor(MOST_RUNS, "marple-run")
        self._drain = Drain()
        self._steps: dict[str, str] = {}

    async def play(self, job: Job, begun: bytes | None) -> tuple[SampleEnd, bytes]:
        """Play a sample in a folder of this node's.

        Args:
            job: its ``runs`` is a folder of the asking machine's and not used here.
            begun: the run folder so far, packed, where it was interrupted.

        Returns:
            How it ended, and the run folder, packed; empty where there is none.
        """
        with tempfile.TemporaryDirectory(prefix="marple-ray-") as runs:
            if begun is not None:
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


def pack(folder: Path) -> bytes:
    """A folder as the bytes of a tar archive; empty where there is no such folder."""
    if not folder.is_dir():
        return b""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as archive:
        archive.add(folder, arcname=".")
    return packed.getvalue()


def unpack(packed: bytes, folder: Path) -> None:
    """Put what `pack` gave at ``folder``, in one step: it is as before or whole, whatever ends this process.

    Raises:
        StorageError: the disk refused it.
    """
    beside, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    with storage_errors(folder):
        for left in (beside, old):
            shutil.rmtree(left, ignore_errors=True)
        beside.mkdir(parents=True)
        with tarfile.open(fileobj=io.BytesIO(packed)) as archive:
            archive.extractall(beside, filter="data")
        if folder.exists():
            folder.rename(old)
        beside.rename(folder)
        sync_directory(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
