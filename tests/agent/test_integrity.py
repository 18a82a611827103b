"""A run whose tools computed with other weights than were loaded does not count; every start of a worker is told."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from marple.agent.bench import Bench
from marple.agent.configuration import RunConfig
from marple.agent.investigators.llm import LlmInvestigator
from marple.agent.models import AssistantMessage, Message, ModelTurn, ScriptedModel
from marple.agent.run import RunOutcome, launch
from marple.sandboxes import Limits, stage
from marple.traces import RunFolder
from tests.agent.turns import chat, say, submit

CHANGE = '''
import torch
from marple.tools.contract import ToolResult, tool


@tool(rung=1)
def change(target, *, seed: int, by: float = 1.0) -> ToolResult:
    """Change a weight.

    Args:
        by: how much.

    Example:
        {"by": 0.5}
    """
    with torch.no_grad():
        next(target.model.parameters()).view(-1)[0] += by
    return ToolResult(text="changed")
'''


async def play(tiny: Path, tmp_path: Path, *, change: float | None = None, kill: bool = False) -> RunOutcome:
    plugin = tmp_path / "change.py"
    plugin.write_text(CHANGE)
    bench = await Bench.start(stage(tiny, plugins=[plugin]), limits=Limits(threads=1, device="cpu"))

    def script(messages: Sequence[Message]) -> ModelTurn:
        turn = sum(isinstance(message, AssistantMessage) for message in messages)
        if kill and turn == 1:
            os.kill(bench.pid or 0, signal.SIGKILL)
        return say("", submit()) if turn == 3 else say("", chat(f"c{turn}"))

    try:
        if change is not None:
            await bench.call("change", {"by": change}, seed=0)
        config = RunConfig.of(target=str(tiny), investigator="llm", runs=tmp_path / "runs")
        return await launch(config, investigator=LlmInvestigator(ScriptedModel(script)), bench=bench)
    finally:
        await bench.close()


@pytest.mark.parametrize(
    ("change", "status"), [(None, "submitted"), (0.0, "submitted"), (0.5, "invalid:weights_changed")]
)
async def test_a_run_on_changed_weights_does_not_count(
    change: float | None, status: str, tiny: Path, tmp_path: Path
) -> None:
    outcome = await play(tiny, tmp_path, change=change)
    assert outcome.status == status
    errors = [event.payload["kind"] for event in RunFolder.open(outcome.path).events() if event.type == "error"]
    assert errors == (["weights_changed"] if change else [])
    assert outcome.result is not None
    assert outcome.result["scores"] == {"scored": False}


async def test_a_fresh_worker_is_told_of_with_its_isolation(tiny: Path, tmp_path: Path) -> None:
    outcome = await play(tiny, tmp_path, kill=True)
    folder = RunFolder.open(outcome.path)
    (start,) = [event.payload for event in folder.events() if event.type == "worker_start"]
    first = folder.events()[0].payload["sandbox"]["stamp"]
    assert start["worker"] == "tools"
    assert start["stamp"]["backend"] == first["backend"]
    assert start["stamp"]["isolation"] == first["isolation"]
    assert folder.spec["isolation"]["backend"] == first["backend"]
    assert folder.result is not None
    assert folder.result["sandbox"]["isolation"] == first["isolation"]


async def test_a_run_that_loses_nothing_starts_one_worker(tiny: Path, tmp_path: Path) -> None:
    outcome = await play(tiny, tmp_path)
    assert [event for event in RunFolder.open(outcome.path).events() if event.type == "worker_start"] == []
