"""A hostile target and its harmless twin in workers of their own, and runs on them over each provider's wire."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from marple.agent.bench import Bench
from marple.agent.configuration import RunConfig
from marple.agent.investigators.llm import LlmInvestigator
from marple.agent.models import open_model
from marple.agent.run import RunOutcome, launch
from marple.sandboxes import Limits, stage
from marple.traces import RunFolder
from tests.boundary.hostile import HARMLESS, HOSTILE, make_huge_target, make_target
from tests.models.provider_server import Answer, ProviderServer, Request

CARELESS = Path(__file__).parent / "careless_tools.py"
CARELESS_TOOLS = ("shout", "murmur", "refuse", "fail")

Script = Callable[[Any], Answer]


@dataclass(frozen=True)
class Played:
    """A run that is over, and every request that its model's provider was sent."""

    outcome: RunOutcome
    folder: RunFolder
    requests: list[Request]


Investigate = Callable[..., Awaitable[Played]]


@pytest.fixture(scope="session")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Path]:
    folder = tmp_path_factory.mktemp("targets")
    words = {"hostile": HOSTILE, "harmless": HARMLESS}
    made = {name: make_target(folder / name, spoken) for name, spoken in words.items()}
    return {**made, "huge": make_huge_target(folder / "huge")}


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def benches(targets: Mapping[str, Path]) -> AsyncIterator[Mapping[str, Bench]]:
    limits = Limits(threads=1)
    opened = {
        name: await Bench.start(stage(path, reference=path, plugins=[CARELESS]), backend="process", limits=limits)
        for name, path in targets.items()
    }
    yield opened
    for bench in opened.values():
        await bench.close()


@pytest.fixture
def investigate(
    targets: Mapping[str, Path], benches: Mapping[str, Bench], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Investigate:
    """Plays a script as a model behind a provider's HTTP API on one of the targets."""
    monkeypatch.setenv("OPENAI_API_KEY", "sk-test")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-test")

    async def start(script: Script, *, on: str = "hostile", provider: str = "openai-chat", **options: Any) -> Played:
        if "case" not in options:
            options |= {"target": str(targets[on]), "reference": str(targets[on])}
        config = RunConfig.of(investigator="llm", runs=tmp_path / on, **options)
        config = replace(config, case=replace(config.case, affordances=("chat", "compare", *CARELESS_TOOLS)))
        with ProviderServer(script) as server:
            model = open_model(f"{provider}/m", base_url=server.base_url(provider))
            outcome = await launch(config, investigator=LlmInvestigator(model), bench=benches[on])
        return Played(outcome, RunFolder.open(outcome.path), server.requests)

    return start
