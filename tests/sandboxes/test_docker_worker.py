"""The worker in a container: the same answers as in a plain process, and an end that says why."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from marple.errors import WorkerDiedError
from marple.sandboxes import Limits, StagedTarget, Worker, stage, start_worker
from marple.sandboxes.docker import DockerBackend, DockerOptions
from marple.sandboxes.outside import ended
from marple.sandboxes.process import ProcessBackend

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("docker_daemon")]
LIMITS = Limits(memory_gib=2, threads=1, device="cpu", file_mib=16)
BACKEND = DockerBackend(DockerOptions())
CALLS: dict[str, dict[str, Any]] = {
    "chat": {"messages": [{"role": "user", "content": "What do you like?"}], "samples": 4, "max_new_tokens": 12},
    "complete": {"text": "The red lamp", "samples": 3, "max_new_tokens": 10},
    "logit_lens": {"text": "The red lamp"},
    "logprobs": {"text": "The red", "continuations": [" lamp", " tree"]},
}


@pytest.fixture(scope="module")
def staged(models: Path, plugin: Path) -> Iterator[StagedTarget]:
    with stage(models / "first", reference=models / "second", plugins=[plugin]) as staged:
        yield staged


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(staged: StagedTarget) -> AsyncIterator[Worker]:
    async with await start_worker(staged, backend=BACKEND, limits=LIMITS) as worker:
        yield worker


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plain(staged: StagedTarget) -> AsyncIterator[Worker]:
    async with await start_worker(staged, backend=ProcessBackend(), limits=LIMITS) as worker:
        yield worker


async def test_it_holds_the_same_target_and_tools(worker: Worker, plain: Worker) -> None:
    assert worker.facts == plain.facts
    assert worker.tools == plain.tools
    assert worker.stamp["worker"] == plain.stamp["worker"]
    assert worker.stamp["isolation"] == "full"


@pytest.mark.parametrize("tool", CALLS)
async def test_a_tool_gives_the_same_result(tool: str, worker: Worker, plain: Worker) -> None:
    inside = await worker.call(tool, CALLS[tool], seed=3)
    outside = await plain.call(tool, CALLS[tool], seed=3)
    assert inside.text == outside.text
    assert inside.data == outside.data


async def test_a_large_result_comes_whole(worker: Worker) -> None:
    text = "\u2028héllo " * 300_000
    assert (await worker.call("echo", {"text": text}, seed=0)).text == text


async def test_many_calls_at_once(worker: Worker) -> None:
    results = await asyncio.gather(*(worker.call("echo", {"text": str(n)}, seed=n) for n in range(60)))
    assert [result.text for result in results] == [str(n) for n in range(60)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may signal another user's process")
async def test_its_death_is_told_with_the_signal(staged: StagedTarget) -> None:
    worker = await start_worker(staged, backend=BACKEND, limits=LIMITS)
    if worker.pid is None:
        pytest.skip("the container's processes cannot be seen here")
    os.kill(worker.pid, signal.SIGKILL)
    # What was killed is the container's init; the kernel ends the worker when that one gets to run, and ends.
    async with asyncio.timeout(60):
        while not ended(worker.pid):
            await asyncio.sleep(0.01)
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        await worker.call("echo", {"text": "x"}, seed=0)
    assert worker.ended is not None
    assert worker.ended.status == -signal.SIGKILL
    await worker.close()


async def test_a_worker_without_enough_memory_says_so(staged: StagedTarget) -> None:
    with pytest.raises(WorkerDiedError, match="ran out of memory"):
        await start_worker(staged, backend=BACKEND, limits=dataclasses.replace(LIMITS, memory_gib=0.1))
