"""One run's code worker: started when the run's first code comes, and again when it has died, a few times."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from marple.errors import ToolError, WireError, WorkerDiedError, WorkerTimeoutError
from marple.sandboxes import Limits, OnProgress, StagedTarget, Worker, start_worker
from marple.sandboxes.backend import CODE_WORKER, Backend
from marple.tools.code.artifacts import Unacceptable, look_at
from marple.tools.code.tool import MOST_SECONDS
from marple.tools.contract import ToolResult

__all__ = ["MAX_CODE_DEATHS", "WORKER_ENDS", "CodeRoom"]

WORKER_ENDS = (WorkerDiedError, WorkerTimeoutError, WireError)
"""What a call raises when its worker has ended."""

MAX_CODE_DEATHS = 3
"""Deaths of its code worker after which a run can run no more code; the run itself goes on."""

_CALL_SECONDS = MOST_SECONDS + 45.0


class CodeRoom:
    """A code worker on a staged target, for one run: what code leaves in it never meets another run.

    Args:
        staged: the same directory that the tool worker has; both only read it.
        backend: one that contains code.
        limits: as for the tool worker; the time of a call is the code's own.
        on_start: told of every worker that was started.
    """

    def __init__(
        self,
        staged: StagedTarget,
        *,
        backend: Backend,
        limits: Limits,
        on_start: Callable[[Worker], None] | None = None,
    ) -> None:
        self._staged = staged
        self._backend = backend
        self._limits = limits
        self._on_start = on_start
        self._worker: Worker | None = None
        # One program at a time, so that the clock of a call does not run while it waits for another.
        self._turn = asyncio.Lock()
        self.deaths = 0
        self.stamp: Mapping[str, Any] = {}
        """What the worker's isolation was when it was last started."""

    @property
    def pid(self) -> int | None:
        """Process id of the worker, None when there is none now."""
        return self._worker.pid if self._worker else None

    async def call(
        self, tool: str, arguments: Mapping[str, Any], *, seed: int, on_progress: OnProgress | None = None
    ) -> ToolResult:
        """Run a program; starts the worker if there is none.

        Raises:
            ToolError: the arguments are not allowed, or the worker has died too often.
            SandboxUnavailableError: code cannot be confined here.
            WorkerDiedError, WorkerTimeoutError, WireError: the worker ended; the next call gets a fresh one.
        """
        async with self._turn:
            if self.deaths >= MAX_CODE_DEATHS:
                raise ToolError(f"{tool} is not available any more: its worker has died {self.deaths} times")
            worker = await self._living_worker()
            try:
                result = await worker.call(tool, arguments, seed=seed, timeout=_CALL_SECONDS, on_progress=on_progress)
                return _looked_at(result)
            except WORKER_ENDS:
                self._worker = None
                self.deaths += 1
                await worker.close()
                raise

    async def _living_worker(self) -> Worker:
        if self._worker is None:
            self._worker = await start_worker(
                self._staged, backend=self._backend, limits=self._limits, program=CODE_WORKER
            )
            self.stamp = self._worker.stamp
            if self._on_start is not None:
                self._on_start(self._worker)
        return self._worker

    async def close(self) -> None:
        """End the worker and everything in it; harmless when repeated."""
        worker, self._worker = self._worker, None
        if worker is not None:
            await worker.close()


def _looked_at(result: ToolResult) -> ToolResult:
    """The result, if everything saved with it is of a kind that is harmless to keep and to show."""
    try:
        for artifact in result.artifacts:
            look_at(artifact.name, artifact.media_type, artifact.data)
    except Unacceptable as error:
        raise WireError(f"the code worker sent something it should have refused: {error}") from error
    return result
