"""Real code workers in bubblewrap, on a tiny model."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from marple.sandboxes import Limits, StagedTarget, Worker, stage, start_worker
from marple.sandboxes.backend import CODE_WORKER, Backend, find_backends
from marple.sandboxes.process import BACKEND as PROCESS
from marple.tools.contract import ToolResult

LIMITS = Limits(threads=1, device="cpu")

Run = Callable[..., Awaitable[ToolResult]]


@pytest.fixture(scope="session")
def contained() -> Backend:
    """The backend that contains code; where it is missing the tests are skipped, except in CI."""
    backend = find_backends()["bubblewrap"]
    status = backend.probe()
    if not status.available and "CI" not in os.environ:
        pytest.skip(f"bubblewrap: {status.reason}")
    assert status.available, status.reason
    return backend


@pytest.fixture(scope="session")
def staged(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StagedTarget]:
    """Two tiny models, the second as the reference."""
    from marple.tools.target.tiny import make_tiny_checkpoint

    folder = tmp_path_factory.mktemp("models")
    make_tiny_checkpoint(folder / "first", seed=1)
    make_tiny_checkpoint(folder / "second", seed=2)
    with stage(folder / "first", reference=folder / "second") as staged:
        yield staged


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def code_worker(staged: StagedTarget, contained: Backend) -> AsyncIterator[Worker]:
    async with await start_worker(staged, backend=contained, limits=LIMITS, program=CODE_WORKER) as worker:
        yield worker
        assert worker.ended is None, worker.ended


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def tool_worker(staged: StagedTarget) -> AsyncIterator[Worker]:
    async with await start_worker(staged, backend=PROCESS, limits=LIMITS) as worker:
        yield worker


@pytest_asyncio.fixture(loop_scope="module")
async def run(code_worker: Worker) -> AsyncIterator[Run]:
    """Runs a program; afterwards the next one must work, whatever this one did."""

    async def start(code: str, *, seed: int = 7, **arguments: Any) -> ToolResult:
        return await code_worker.call("python", {"code": code, **arguments}, seed=seed)

    yield start
    after = await start("print('clean', sorted(__import__('os').listdir('.')))")
    assert printed(after) == ["clean []"]


def printed(result: ToolResult) -> list[str]:
    """The lines that a program printed."""
    lines: list[str] = result.data["printed"]
    return lines


def inside_scripts() -> Path:
    """The directory of the scripts that confine processes."""
    import marple.sandboxes

    return Path(marple.sandboxes.__path__[0]) / "inside"
