"""The workbench: the target's worker as the loop uses it, started again when it dies, a bounded number of times."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from marple.errors import WireError, WorkerDiedError, WorkerTimeoutError
from marple.sandboxes import Limits, OnProgress, StagedTarget, Worker, start_worker
from marple.tools.contract import ToolResult

__all__ = ["MAX_DEATHS", "WORKER_ENDS", "Bench"]

MAX_DEATHS = 3
"""Deaths after which a run ends as ``worker_died``."""

WORKER_ENDS = (WorkerDiedError, WorkerTimeoutError, WireError)
"""What a call raises when its worker has ended."""


class Bench:
    """One staged target and the worker that holds it."""

    def __init__(self, staged: StagedTarget, worker: Worker, *, backend: str, limits: Limits) -> None:
        self._staged = staged
        self._worker: Worker | None = worker
        self._backend = backend
        self._limits = limits
        self._starting = asyncio.Lock()
        self.tools = dict(worker.tools)
        self.facts = dict(worker.facts)
        self.stamp = dict(worker.stamp)
        self.deaths = 0

    @classmethod
    async def start(cls, staged: StagedTarget, *, backend: str = "auto", limits: Limits | None = None) -> Bench:
        """Start the worker; the staged files are removed by ``close``, or here when the start fails."""
        limits = limits or Limits()
        try:
            worker = await start_worker(staged, backend=backend, limits=limits)
        except BaseException:
            staged.remove()
            raise
        return cls(staged, worker, backend=backend, limits=limits)

    @property
    def pid(self) -> int | None:
        """Process id of the worker, None when there is none now."""
        return self._worker.pid if self._worker else None

    @property
    def lost(self) -> bool:
        """Whether the worker has died too often to go on."""
        return self.deaths >= MAX_DEATHS

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        seed: int,
        on_progress: OnProgress | None = None,
        fresh: bool = False,
    ) -> ToolResult:
        """Run one tool on the target; any number of calls may be under way.

        Args:
            tool: its name.
            arguments: what its schema asks for.
            seed: the same call with the same seed gives the same result.
            on_progress: told now and then how far the call is.
            fresh: compute it again instead of serving an equal call's result (for replication).

        Raises:
            ToolError: the tool refused its arguments.
            WorkerDiedError, WorkerTimeoutError, WireError: the worker ended; the next call gets a fresh one.
            SandboxError: the tool failed and the worker lives.
        """
        worker = await self._living_worker()
        try:
            return await worker.call(tool, arguments, seed=seed, on_progress=on_progress, fresh=fresh)
        except WORKER_ENDS:
            # Calls that were under way together are told of the same end; it is one death.
            if worker is self._worker:
                self._worker = None
                self.deaths += 1
            await worker.close()
            raise

    async def _living_worker(self) -> Worker:
        async with self._starting:
            if self._worker is None:
                self._worker = await start_worker(self._staged, backend=self._backend, limits=self._limits)
            return self._worker

    async def close(self) -> None:
        """End the worker and remove what was staged."""
        try:
            if self._worker is not None:
                await self._worker.close()
        finally:
            self._worker = None
            self._staged.remove()
