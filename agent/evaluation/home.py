"""Runs in threads of their own, workers on one event loop.

A run waits again and again until its events are on disk. On one event loop each of these waits would hold up all
other runs; in threads they overlap. What belongs to the loop of the workers is called over to it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import Executor
from typing import Any, TypeVar

__all__ = ["Home", "in_own_thread"]

_T = TypeVar("_T")


class Home:
    """The event loop that workers belong to, which is the one it is made on."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    async def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine there, from whatever loop; being cancelled cancels it."""
        if asyncio.get_running_loop() is self._loop:
            return await work
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._loop))


async def in_own_thread(threads: Executor, make: Callable[[], Coroutine[Any, Any, _T]]) -> _T:
    """Run a coroutine on an event loop of its own in a thread.

    Args:
        threads: where threads come from.
        make: makes the coroutine; called in the thread.

    Returns:
        What it returns. When this is cancelled, so is the coroutine, and it is waited for.
    """
    own: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def main() -> _T:
        task = asyncio.current_task()
        assert task is not None
        own.append((asyncio.get_running_loop(), task))
        return await make()

    def play() -> _T:
        with asyncio.Runner() as runner:
            return runner.run(main())

    playing = asyncio.get_running_loop().run_in_executor(threads, play)
    try:
        return await asyncio.shield(playing)
    except asyncio.CancelledError:
        if not playing.done() and not playing.cancel() and own:
            loop, task = own[0]
            loop.call_soon_threadsafe(task.cancel)
        await asyncio.wait([playing])
        raise
