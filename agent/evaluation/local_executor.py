"""The executor on this machine: all runs in one event loop, one worker process for each target."""

from __future__ import annotations

import asyncio

from marple.agent.draining import Drain
from marple.agent.evaluation.bench_pool import BenchPool
from marple.agent.evaluation.executor import ExecutorOptions, Hear, JobQueue, Update
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
        pool = BenchPool()
        held: set[str] = set()
        playing: dict[asyncio.Task[SampleEnd], Job] = {}
        try:
            while True:
                self._start(queue, pool, held, playing, hear, drain)
                if not playing:
                    return
                ended, _ = await asyncio.wait(playing, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    job, end = playing.pop(task), task.result()
                    queue.finish(end)
                    hear(Update(job, "end", end=end))
                for target in [one for one in held if not queue.needs(one)]:
                    held.discard(target)
                    await pool.forget(target)
        finally:
            for task in playing:
                task.cancel()
            await asyncio.gather(*playing, return_exceptions=True)
            await pool.close()

    def _start(
        self,
        queue: JobQueue,
        pool: BenchPool,
        held: set[str],
        playing: dict[asyncio.Task[SampleEnd], Job],
        hear: Hear,
        drain: Drain,
    ) -> None:
        """Start as many jobs as there is room for."""
        while len(playing) < self._options.max_parallel and not drain.reason:
            job = queue.take(held, more=len(held) < self._options.max_targets)
            if job is None:
                return
            held.add(job.sample.organism)
            hear(Update(job, "start"))
            task = asyncio.create_task(play_sample(job, pool.of(job.sample.organism), hear=hear, drain=drain))
            playing[task] = job
