"""A tiny real target, and runs on it by investigators that say what a test tells them to."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from marple.agent.bench import Bench
from marple.agent.configuration import RunConfig
from marple.agent.investigators.llm import LlmInvestigator
from marple.agent.models import ScriptedModel
from marple.agent.run import RunOutcome, launch
from marple.sandboxes import Limits, stage
from marple.traces import RunFolder

Play = Callable[..., Awaitable[tuple[RunOutcome, RunFolder, ScriptedModel]]]


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from marple.tools.target.tiny import make_tiny_checkpoint

    path = tmp_path_factory.mktemp("tiny") / "model"
    make_tiny_checkpoint(path)
    return path


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def bench(tiny: Path) -> AsyncIterator[Bench]:
    """One worker for all tests that do not kill it."""
    opened = await Bench.start(stage(tiny), limits=Limits(threads=1))
    yield opened
    await opened.close()


@pytest.fixture
def play(tiny: Path, bench: Bench, tmp_path: Path) -> Play:
    """Plays a script of turns on the tiny target and returns the outcome, the folder and the model."""

    async def start(script: Any, **options: Any) -> tuple[RunOutcome, RunFolder, ScriptedModel]:
        config = RunConfig.of(target=str(tiny), investigator="llm", runs=tmp_path / "runs", **options)
        model = ScriptedModel(script)
        outcome = await launch(config, investigator=LlmInvestigator(model), bench=bench)
        return outcome, RunFolder.open(outcome.path), model

    return start
