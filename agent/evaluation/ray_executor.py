"""The executor on a Ray cluster: an actor for each target that is held, with the CPUs and GPUs asked for.

Ray's own variable ``RAY_ADDRESS`` names a cluster; without it one is started on this machine and ended afterwards.
``MARPLE_RAY_CPUS`` and ``MARPLE_RAY_GPUS`` say what a target takes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marple.agent.draining import Drain
from marple.agent.evaluation.executor import ExecutorOptions, Hear, JobQueue, Update
from marple.agent.evaluation.ray_actor import MOST_RUNS, Packed, TargetActor, pack, unpack
from marple.agent.evaluation.samples import Job, SampleEnd
from marple.errors import StorageError, UsageError
from marple.tasks.outcome import outcome

__all__ = ["RayExecutor", "Takes", "make_executor"]

TRIES = 3
"""Times that a sample is played whose actor died; then its end says so, and the same command tries again."""

POLL_SECONDS = 0.5
"""Between two looks at what the actors do."""

_LOCAL_OBJECT_STORE = 128 * 2**20
"""Bytes; run folders of a nano target have some hundred kilobytes."""

_KEYS = ("KEY", "TOKEN", "SECRET")


@dataclass(frozen=True)
class Takes:
    """What an actor takes of the cluster."""

    cpus: float = 1.0
    gpus: float = 0.0

    @classmethod
    def from_environment(cls) -> Takes:
        """As ``MARPLE_RAY_CPUS`` and ``MARPLE_RAY_GPUS`` say.

        Raises:
            UsageError: one of them is no amount.
        """
        return cls(_amount("MARPLE_RAY_CPUS", 1.0), _amount("MARPLE_RAY_GPUS", 0.0))

    def fits(self, there: dict[str, float]) -> int:
        """How many such actors a cluster with these resources holds at once.

        Raises:
            UsageError: not one.
        """
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        counts = [int(there.get(name, 0.0) // amount) for name, amount in wanted.items() if amount > 0]
        if counts and min(counts) < 1:
            raise UsageError(
                f"the Ray cluster has {there.get('CPU', 0):g} CPUs and {there.get('GPU', 0):g} GPUs, and one target "
                f"takes {self.cpus:g} and {self.gpus:g}: add nodes, or set MARPLE_RAY_CPUS and MARPLE_RAY_GPUS"
            )
        return min(counts, default=10**6)


def make_executor(options: ExecutorOptions) -> RayExecutor:
    """The executor with these options.

    Raises:
        UsageError: Ray is not installed, or a variable is wrong.
    """
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise UsageError("--executor ray needs Ray: pip install ray") from error
    return RayExecutor(options, Takes.from_environment())


class RayExecutor:
    """Plays jobs on the actors of a cluster."""

    def __init__(self, options: ExecutorOptions, takes: Takes) -> None:
        self._options = options
        self._takes = takes

    async def execute(self, queue: JobQueue, *, hear: Hear, drain: Drain) -> None:
        """See `Executor.execute`.

        Raises:
            UsageError: the cluster cannot be reached, or has not what a target takes; nothing was started.
        """
        with _connected():
            import ray

            there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
            most = min(self._options.max_targets, self._takes.fits(there))
            await _Playing(queue, hear, drain, self._takes, most, self._options.max_parallel).play()


class _Playing:
    """One execution: the actors that are alive and the samples that are on them."""

    def __init__(
        self, queue: JobQueue, hear: Hear, drain: Drain, takes: Takes, max_targets: int, max_parallel: int
    ) -> None:
        self._queue, self._hear, self._drain = queue, hear, drain
        self._takes, self._max_targets, self._max_parallel = takes, max_targets, max_parallel
        self._actors: dict[str, Any] = {}
        self._tasks: dict[asyncio.Task[SampleEnd], Job] = {}
        self._told = False

    async def play(self) -> None:
        """Until the queue gives nothing and nothing is under way."""
        try:
            while True:
                self._start()
                if not self._tasks:
                    return
                ended, _ = await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED, timeout=POLL_SECONDS)
                for task in ended:
                    job, end = self._tasks.pop(task), task.result()
                    self._queue.finish(end)
                    self._hear(Update(job, "end", end=end))
                await self._look()
                for target in [one for one in self._actors if not self._queue.needs(one)]:
                    await self._let_go(target)
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            for target in list(self._actors):
                await self._let_go(target)

    def _start(self) -> None:
        while len(self._tasks) < self._max_parallel and not self._drain.reason:
            job = self._queue.take(self._actors.keys(), more=len(self._actors) < self._max_targets)
            if job is None:
                return
            self._actor(job.sample.organism)
            self._hear(Update(job, "start"))
            self._tasks[asyncio.create_task(self._play(job))] = job

    async def _play(self, job: Job) -> SampleEnd:
        """Play a job on its target's actor; one whose actor dies is played again on another."""
        from ray.exceptions import RayActorError, RayError

        folder = Path(job.runs) / job.run_id
        begun = await asyncio.to_thread(pack, folder)
        for attempt in range(1, TRIES + 1):
            actor = self._actor(job.sample.organism)
            try:
                played: tuple[SampleEnd, Packed] = await actor.play.remote(job, begun)
            except RayActorError:
                if self._actors.get(job.sample.organism) is actor:
                    del self._actors[job.sample.organism]
                self._hear(Update(job, "step", f"its Ray worker died, {attempt} of {TRIES} tries"))
                continue
            except RayError as error:
                return _lost(job, outcome("error"), f"{type(error).__name__}: {error}")
            end, packed = played
            try:
                if packed:
                    await asyncio.to_thread(unpack, packed, folder)
            except StorageError as error:
                return SampleEnd(
                    job.sample.key, job.run_id, outcome("error"), False, error=str(error), ends_all=str(error)
                )
            return end
        return _lost(job, outcome("worker_died"), f"the Ray worker that played it died {TRIES} times")

    def _actor(self, target: str) -> Any:
        """The actor that holds a target."""
        if target not in self._actors:
            import ray

            made = ray.remote(TargetActor).options(
                num_cpus=self._takes.cpus,
                num_gpus=self._takes.gpus,
                max_concurrency=min(self._max_parallel, MOST_RUNS) + 4,
                max_restarts=0,
                runtime_env={"env_vars": _shared_variables()},
            )
            self._actors[target] = made.remote()
        return self._actors[target]

    async def _look(self) -> None:
        """Tell the actors of a wish to stop, and hear of their last steps."""
        from ray.exceptions import RayError

        jobs = {job.sample.key: job for job in self._tasks.values()}
        for actor in list(self._actors.values()):
            # An actor that is dead is found out by the sample that waits for it.
            with contextlib.suppress(RayError, TimeoutError):
                if self._drain.reason:
                    await asyncio.wait_for(_answer(actor.drain.remote(self._drain.reason)), POLL_SECONDS)
                for key, text in (await asyncio.wait_for(_answer(actor.steps.remote()), POLL_SECONDS)).items():
                    if key in jobs:
                        self._hear(Update(jobs[key], "step", text))

    async def _let_go(self, target: str) -> None:
        import ray
        from ray.exceptions import RayError

        actor = self._actors.pop(target)
        with contextlib.suppress(RayError, TimeoutError):
            await asyncio.wait_for(_answer(actor.close.remote()), 20)
        ray.kill(actor)


async def _answer(reference: Any) -> Any:
    return await reference


def _lost(job: Job, status: str, error: str) -> SampleEnd:
    """The end of a sample that has no result; the same command plays it again."""
    return SampleEnd(job.sample.key, job.run_id, status, finished=False, error=error[:300])


@contextlib.contextmanager
def _connected() -> Iterator[None]:
    """Hold the cluster that ``RAY_ADDRESS`` names, or one of this process's own."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # The processes that Ray starts find a GPU or none by what they are given, as they will from its next version on.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    import ray

    address = os.environ.get("RAY_ADDRESS")
    own: dict[str, Any] = {} if address else {"include_dashboard": False, "object_store_memory": _LOCAL_OBJECT_STORE}
    # Ray prints what it has to say of its workers, such as that one died, whatever it is told about logs.
    with contextlib.redirect_stdout(sys.stderr):
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            raise UsageError(f"no Ray cluster at {address or 'this machine'}: {error}") from error
        try:
            yield
        finally:
            ray.shutdown()


def _shared_variables() -> dict[str, str]:
    """Marple's own settings, for nodes that were started without them; no key, since Ray shows what it is given."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("MARPLE_") and not any(word in name for word in _KEYS)
    }


def _amount(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    try:
        amount = float(text) if text else default
    except ValueError:
        amount = -1.0
    if not 0 <= amount <= 1024:
        raise UsageError(f"{name}={text!r} is no amount: give a number from 0 on, such as 1 or 0.5")
    return amount
