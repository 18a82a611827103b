"""The executor on this machine: a thread for each run, one worker process for each target."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from marple.agent.draining import Drain
from marple.agent.evaluation.bench_pool import BenchPool
from marple.agent.evaluation.executor import ExecutorOptions, Hear, JobQueue, Update
from marple.agent.evaluation.home import in_own_thread
from marple.agent.evaluation.playing_samples import play_sample
from marple.agent.evaluation.samples import Job, SampleEnd

__all__ = ["LocalExecutor", "make_executor"]


def make_executor(options: ExecutorOptions) -> LocalExecutor:
    """The executor with these options."""
    return LocalExecutor(options)


class LocalExecutor:
    """Plays jobs here, target by target, so that few workers are alive at once."""

    def __init__(self, options: ExecutorOptions) -> None:
        self._options = options

    async def execute(self, queue: JobQueue, *, hear: Hear, drain: Drain) -> None:
        """See `Executor.execute`."""
        with ThreadPoolExecutor(self._options.max_parallel, "marple-run") as threads:
            playing = _Playing(self._options, BenchPool(), threads, hear, drain)
            try:
                while playing.start(queue):
                    await playing.wait(queue)
            finally:
                await playing.end()


class _Playing:
    """The jobs under way and the targets that are held for them."""

    def __init__(
        self, options: ExecutorOptions, pool: BenchPool, threads: ThreadPoolExecutor, hear: Hear, drain: Drain
    ) -> None:
        self._options = options
        self._pool = pool
        self._threads = threads
        self._hear = hear
        self._drain = drain
        self._held: set[str] = set()
        self._jobs: dict[asyncio.Task[SampleEnd], Job] = {}

    def start(self, queue: JobQueue) -> bool:
        """Start as many jobs as there is room for; returns whether any is under way."""
        while len(self._jobs) < self._options.max_parallel and not self._drain.reason:
            job = queue.take(self._held, more=len(self._held) < self._options.max_targets)
            if job is None:
                break
            self._held.add(job.sample.organism)
            self._hear(Update(job, "start"))
            self._jobs[asyncio.create_task(self._play(job))] = job
        return bool(self._jobs)

    async def wait(self, queue: JobQueue) -> None:
        """Wait until a job ends; give it back, and let go of targets that are not needed any more."""
        ended, _ = await asyncio.wait(self._jobs, return_when=asyncio.FIRST_COMPLETED)
        for task in ended:
            job, end = self._jobs.pop(task), task.result()
            queue.finish(end)
            self._hear(Update(job, "end", end=end))
        for target in [one for one in self._held if not queue.needs(one)]:
            self._held.discard(target)
            await self._pool.forget(target)

    async def end(self) -> None:
        """Cancel what is under way and close every worker."""
        for task in self._jobs:
            task.cancel()
        await asyncio.gather(*self._jobs, return_exceptions=True)
        await self._pool.close()

    async def _play(self, job: Job) -> SampleEnd:
        benches = self._pool.of(job.sample.organism)
        return await in_own_thread(self._threads, lambda: play_sample(job, benches, hear=self._hear, drain=self._drain))
