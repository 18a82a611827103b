"""A tiny real target on one worker for the games within this process, and a place where processes of games meet."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from marple.agent.bench import Bench
from marple.sandboxes import Limits, stage


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A folder with a short path, since a socket's path is short."""
    with tempfile.TemporaryDirectory(prefix="marple-games-", dir="/tmp") as folder:
        yield Path(folder)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from marple.tools.target.tiny import make_tiny_checkpoint

    path = tmp_path_factory.mktemp("tiny") / "model"
    make_tiny_checkpoint(path)
    return path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bench(tiny: Path) -> AsyncIterator[Bench]:
    opened = await Bench.start(stage(tiny), limits=Limits(threads=1))
    yield opened
    await opened.close()
