"""Workbenches that several runs share: one worker for each target, whose engine batches the calls of all of them.

A run gets a lease. What happens to it stays its own: its code workers, the deaths of the worker that it has seen, and
when it lets go. The bench is closed when nobody holds it and no sample on its target is left.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from marple.agent.bench import MAX_DEATHS, WORKER_ENDS, WorkerStart
from marple.agent.benches import Benches, Role, open_bench
from marple.agent.evaluation.home import Home
from marple.agent.workbench import Workbench
from marple.errors import SandboxError
from marple.sandboxes import OnProgress, ToolInfo
from marple.tasks.case import Case
from marple.tasks.materials import Materials, control_of, prepare
from marple.tasks.outcome import Ending
from marple.tools.contract import ToolResult

if TYPE_CHECKING:
    from marple.tasks.organisms import Progress

__all__ = ["BenchPool"]

Open = Callable[[Materials], Awaitable[Workbench]]


@dataclass(eq=False)
class _Shared:
    """A bench, who holds it, and for which targets' samples it is kept."""

    opening: asyncio.Task[Workbench]
    leases: int = 0
    kept_for: set[str] = field(default_factory=set)
    tainted: bool = False
    """Whether nothing new may be computed on it."""


class BenchPool:
    """Opens every bench once and keeps it while it is of use; made on the event loop that workers belong to."""

    def __init__(self) -> None:
        self.home = Home()
        # Transformers cannot load two models at once in one process: its default device is everybody's.
        self._builder = ThreadPoolExecutor(1, "marple-build")
        self._benches: dict[Any, _Shared] = {}
        self._materials: dict[Any, asyncio.Task[Any]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def of(self, target: str) -> Benches:
        """The store as a sample on this target sees it."""
        return _Store(self, target)

    async def forget(self, target: str) -> None:
        """No sample on this target is left: close what is kept for it alone."""
        for key in [key for key in self._materials if key[0] == target]:
            del self._materials[key]
        for shared in list(self._benches.values()):
            shared.kept_for.discard(target)
            self._close_if_idle(shared)
        await self._closed()

    async def close(self) -> None:
        """Close everything."""
        for shared in list(self._benches.values()):
            shared.kept_for.clear()
            shared.leases = 0
            self._close_if_idle(shared)
        await self._closed()
        self._builder.shutdown(wait=False, cancel_futures=True)

    @property
    def open(self) -> int:
        """How many benches there are now."""
        return len(self._benches)

    async def once(self, key: Any, work: Callable[[], Any]) -> Any:
        """What a piece of blocking work gives, done once for a key, one at a time; a failure is not kept."""
        if key not in self._materials:
            self._materials[key] = asyncio.create_task(self._built(work))
            # Heard of even where whoever waited was cancelled.
            self._materials[key].add_done_callback(lambda task: task.cancelled() or task.exception())
        task = self._materials[key]
        try:
            return await asyncio.shield(task)
        except BaseException:
            if task.done() and self._materials.get(key) is task:
                del self._materials[key]
            raise

    async def _built(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._builder, work)

    async def lease(self, key: Any, target: str, open: Callable[[], Awaitable[Workbench]]) -> _Lease:
        """A share of the bench with this key, which is opened if it is not there."""
        shared = self._benches.get(key)
        if shared is None:
            shared = self._benches[key] = _Shared(asyncio.ensure_future(_opened(open)))
        shared.leases += 1
        shared.kept_for.add(target)
        try:
            bench = await asyncio.shield(shared.opening)
        except BaseException:
            # Those who wait for the same start hear of the same failure; whoever comes later tries again.
            if shared.opening.done() and self._benches.get(key) is shared:
                del self._benches[key]
            self.release(shared)
            raise
        return _Lease(bench, self, shared)

    def taint(self, shared: _Shared) -> None:
        """Let nobody else compute on a bench."""
        shared.tainted = True
        for key in [key for key, one in self._benches.items() if one is shared]:
            # It goes when its last lease goes.
            self._benches[("tainted", id(shared))] = self._benches.pop(key)

    def release(self, shared: _Shared) -> None:
        """One run less holds it."""
        shared.leases -= 1
        self._close_if_idle(shared)

    def _close_if_idle(self, shared: _Shared) -> None:
        if shared.leases > 0 or (shared.kept_for and not shared.tainted):
            return
        for key in [key for key, one in self._benches.items() if one is shared]:
            del self._benches[key]
            task = asyncio.create_task(_close(shared.opening))
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def _closed(self) -> None:
        if self._closing:
            await asyncio.gather(*self._closing, return_exceptions=True)


async def _opened(open: Callable[[], Awaitable[Workbench]]) -> Workbench:
    return await open()


async def _close(opening: asyncio.Task[Workbench]) -> None:
    try:
        bench = await opening
    except SandboxError:
        return
    await bench.close()


class _Store:
    """The pool as one sample sees it."""

    def __init__(self, pool: BenchPool, target: str) -> None:
        self._pool = pool
        self._target = target

    async def prepare(self, case: Case, *, progress: Progress | None = None) -> Materials:
        """The case's materials, found or built once."""
        key = (self._target, "target", case.id, case.file)
        found: Materials = await self._pool.home.run(self._pool.once(key, lambda: prepare(case, progress=progress)))
        return found

    async def control_of(
        self, case: Case, materials: Materials, *, progress: Progress | None = None
    ) -> Materials | None:
        """The control's materials, found or built once."""
        key = (self._target, "control", case.id, _staged(materials))
        once = self._pool.once(key, lambda: control_of(case, materials, progress=progress))
        found: Materials | None = await self._pool.home.run(once)
        return found

    async def open(self, materials: Materials, role: Role, *, backend: str = "auto") -> Workbench:
        """A share of the bench; an endpoint has no worker that could be shared."""
        if materials.endpoints is not None:
            return await open_bench(materials, backend=backend)
        # A trial is measured where nobody experiments. A control may be another case's target.
        key = (role == "trial", backend, _staged(materials))
        lease = self._pool.lease(key, self._target, lambda: open_bench(materials, backend=backend))
        return await self._pool.home.run(lease)


def _staged(materials: Materials) -> tuple[Any, ...]:
    """All that a worker is started with."""
    words = materials.truth.keywords if materials.truth else ()
    files = (materials.target, materials.reference, materials.adapter, materials.saes, materials.corpus)
    return (*files, materials.plugins, tuple(words), str(materials.endpoints))


class _Lease:
    """One run's share of a bench."""

    def __init__(self, bench: Workbench, pool: BenchPool, shared: _Shared) -> None:
        self._bench = bench
        self._pool = pool
        self._shared = shared
        # Its first start is that of the worker it finds.
        tools = [at for at, start in enumerate(bench.starts) if start.worker == "tools"]
        self._first_start = tools[-1] if tools else 0
        self._deaths: set[int] = set()
        self._closed = False

    @property
    def tools(self) -> dict[str, ToolInfo]:
        """The trusted tools."""
        return self._bench.tools

    @property
    def facts(self) -> dict[str, Any]:
        """What the worker said of the target."""
        return self._bench.facts

    @property
    def stamp(self) -> dict[str, Any]:
        """What isolation the worker has now."""
        return self._bench.stamp

    @property
    def python_reason(self) -> str:
        """Why code of an agent's cannot run here."""
        return self._bench.python_reason

    @property
    def when_lost(self) -> Ending:
        """How a run ends whose target is lost."""
        return self._bench.when_lost

    @property
    def starts(self) -> list[WorkerStart]:
        """The worker it found, and every start since."""
        return list(self._bench.starts[self._first_start :])

    @property
    def code_tools(self) -> dict[str, ToolInfo]:
        """The tools that run an agent's code."""
        return self._bench.code_tools

    @property
    def lost(self) -> bool:
        """Whether the worker has died too often during this run's own calls; what others did to it does not count."""
        return len(self._deaths) >= MAX_DEATHS

    async def call(
        self,
        tool: str,
        arguments: Mapping[str, Any],
        *,
        seed: int,
        on_progress: OnProgress | None = None,
        fresh: bool = False,
    ) -> ToolResult:
        """Run one tool; see `Bench.call`."""
        call = self._bench.call(tool, arguments, seed=seed, on_progress=on_progress, fresh=fresh)
        try:
            return await self._pool.home.run(call)
        except WORKER_ENDS:
            # Calls that were under way together are told of the same end; it is one death.
            self._deaths.add(len(self._bench.starts))
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
        """Run an agent's code in its own worker; see `Bench.call_code`."""
        call = self._bench.call_code(tool, arguments, owner=owner, seed=seed, on_progress=on_progress)
        return await self._pool.home.run(call)

    async def leave(self, owner: str) -> None:
        """End the run's code worker."""
        await self._pool.home.run(self._bench.leave(owner))

    async def changed(self) -> str:
        """Why results cannot be trusted any more; then no other run gets this bench."""
        return await self._pool.home.run(self._changed())

    async def _changed(self) -> str:
        found = await self._bench.changed()
        if found:
            self._pool.taint(self._shared)
        return found

    async def close(self) -> None:
        """Let go of the share."""
        await self._pool.home.run(self._close())

    async def _close(self) -> None:
        if not self._closed:
            self._closed = True
            self._pool.release(self._shared)
