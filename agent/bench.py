"""The workbench: the workers that hold the target, as the loop uses them; started again when they die, a few times.

The tool worker runs trusted tools, and its results are evidence. Code written by an agent runs in a code worker, one
for each run, and only where the isolation backend contains code; what comes of it is never evidence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from marple.agent.code_room import WORKER_ENDS, CodeRoom
from marple.errors import SandboxError, SandboxUnavailableError, ToolError
from marple.sandboxes import Limits, OnProgress, StagedTarget, ToolInfo, Worker, start_worker
from marple.sandboxes.backend import Backend, BackendStatus
from marple.sandboxes.choosing import Chosen, choose_backend
from marple.tasks.outcome import Ending
from marple.tools.code.tool import python_spec
from marple.tools.contract import ToolResult

__all__ = ["MAX_DEATHS", "WORKER_ENDS", "Bench", "WorkerStart"]

MAX_DEATHS = 3
"""Deaths after which a run ends as ``worker_died``."""


@dataclass(frozen=True)
class WorkerStart:
    """A worker was started on a bench."""

    worker: Literal["tools", "code"]
    owner: str | None
    """The run whose code worker it is; None for the tool worker, which all runs share."""
    stamp: Mapping[str, Any]
    """What isolation it has."""


class Bench:
    """One staged target, the worker that holds it, and the code workers of the runs that use it.

    Args:
        staged: removed by ``close``.
        worker: the tool worker, ready.
        backend: what isolates it, and what fresh workers are started with.
        limits: of each worker.
    """

    def __init__(self, staged: StagedTarget, worker: Worker, *, backend: str | Backend, limits: Limits) -> None:
        self._staged = staged
        self._worker: Worker | None = worker
        self._backend = _backend(backend)
        self._limits = limits
        self._starting = asyncio.Lock()
        self._rooms: dict[str, CodeRoom] = {}
        self.tools = dict(worker.tools)
        self.facts = dict(worker.facts)
        self.stamp = dict(worker.stamp)
        self.deaths = 0
        self.when_lost: Ending = "worker_died"
        self.starts = [WorkerStart("tools", None, self.stamp)]
        """Every start of a worker, in order."""
        self._digests = worker.digests
        self.python_reason = Chosen(self._backend, BackendStatus(self._backend.name, available=True)).python_refusal
        """Why code of an agent's cannot run here; '' where it can."""

    @classmethod
    async def start(
        cls, staged: StagedTarget, *, backend: str | Backend = "auto", limits: Limits | None = None
    ) -> Bench:
        """Start the tool worker; the staged files are removed by ``close``, or here when the start fails."""
        limits = limits or Limits()
        try:
            chosen = _backend(backend)
            worker = await start_worker(staged, backend=chosen, limits=limits)
        except BaseException:
            staged.remove()
            raise
        return cls(staged, worker, backend=chosen, limits=limits)

    @property
    def code_tools(self) -> dict[str, ToolInfo]:
        """The tools that run an agent's code: ``python``, where the backend contains it."""
        return {} if self.python_reason else {"python": _python_info()}

    @property
    def pid(self) -> int | None:
        """Process id of the tool worker, None when there is none now."""
        return self._worker.pid if self._worker else None

    @property
    def lost(self) -> bool:
        """Whether the tool worker has died too often to go on."""
        return self.deaths >= MAX_DEATHS

    def room(self, owner: str) -> CodeRoom:
        """Where the code of one run is run; made when it is first asked for."""
        if owner not in self._rooms:

            def note(worker: Worker) -> None:
                self.starts.append(WorkerStart("code", owner, dict(worker.stamp)))

            self._rooms[owner] = CodeRoom(self._staged, backend=self._backend, limits=self._limits, on_start=note)
        return self._rooms[owner]

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
            tool: its name; one of ``tools``, never one of ``code_tools``.
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

    async def call_code(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        owner: str,
        seed: int,
        on_progress: OnProgress | None = None,
    ) -> ToolResult:
        """Run an agent's code on a copy of the target that no other tool uses.

        Args:
            tool: one of ``code_tools``.
            arguments: what its schema asks for.
            owner: the run; no two share a worker.
            seed: of the code's random numbers.
            on_progress: told how many seconds it has run.

        Raises:
            ToolError: it is not offered, or the arguments are not allowed.
            WorkerDiedError, WorkerTimeoutError, WireError: the code worker ended; the next call gets a fresh one, and
                the tool worker does not know of it.
            SandboxUnavailableError: code cannot be confined here; it is not offered from now on.
        """
        if tool not in self.code_tools:
            raise ToolError(f"{tool} is not offered: {self.python_reason or 'it runs no code'}")
        try:
            return await self.room(owner).call(tool, arguments, seed=seed, on_progress=on_progress)
        except SandboxUnavailableError as error:
            self.python_reason = str(error)
            raise

    async def leave(self, owner: str) -> None:
        """End the code worker of a run that is over, with all that its code has left there."""
        room = self._rooms.pop(owner, None)
        if room is not None:
            await room.close()

    async def changed(self) -> str:
        """Why results of the tools cannot be trusted any more: the weights it computes with are not those it loaded.

        Returns:
            '' where they are the same to the bit, and where there is no worker: one that was lost is told of elsewhere.
        """
        worker = self._worker
        if worker is None or worker.ended is not None:
            return ""
        try:
            now = await worker.digest()
        except SandboxError as error:
            return f"the digest of its weights could not be had: {error}"
        if worker.digests is None:
            return "the worker did not say which weights it loaded"
        if worker.digests != self._digests:
            return "a fresh worker loaded other weights than the first"
        return "" if now == worker.digests else "the weights are not those that were loaded"

    async def _living_worker(self) -> Worker:
        async with self._starting:
            if self._worker is None:
                self._worker = await start_worker(self._staged, backend=self._backend, limits=self._limits)
                self.stamp = dict(self._worker.stamp)
                self.starts.append(WorkerStart("tools", None, self.stamp))
            return self._worker

    async def close(self) -> None:
        """End all workers and remove what was staged."""
        try:
            for owner in list(self._rooms):
                await self.leave(owner)
            if self._worker is not None:
                await self._worker.close()
        finally:
            self._worker = None
            self._staged.remove()


def _backend(backend: str | Backend) -> Backend:
    return choose_backend(backend).backend if isinstance(backend, str) else backend


def _python_info() -> ToolInfo:
    spec = python_spec()
    return ToolInfo(
        name=spec.name,
        description=spec.description,
        rung=spec.rung,
        parallel=spec.parallel,
        needs=[],
        parameters=dict(spec.parameters),
    )
