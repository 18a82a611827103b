"""A worker that dies is a typed event; the run goes on with a fresh one, three times."""

from __future__ import annotations

import asyncio
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
from marple.errors import WorkerDiedError
from marple.sandboxes import Limits, stage
from marple.traces import RunFolder
from tests.agent.turns import chat, say, submit


async def play_with_deaths(tiny: Path, runs: Path, deaths: set[int]) -> RunOutcome:
    """The worker is killed as the investigator takes the turns in ``deaths``; it submits at turn 6."""
    bench = await Bench.start(stage(tiny), limits=Limits(threads=1))

    def script(messages: Sequence[Message]) -> ModelTurn:
        turn = sum(isinstance(message, AssistantMessage) for message in messages)
        if turn in deaths and bench.pid is not None:
            os.kill(bench.pid, signal.SIGKILL)
        return say("", submit()) if turn == 6 else say("", chat(f"c{turn}"))

    try:
        config = RunConfig.of(target=str(tiny), investigator="llm", runs=runs)
        return await launch(config, investigator=LlmInvestigator(ScriptedModel(script)), bench=bench)
    finally:
        await bench.close()
        assert bench.pid is None


async def test_one_death_costs_one_call(tiny: Path, tmp_path: Path) -> None:
    outcome = await play_with_deaths(tiny, tmp_path, {1})
    assert outcome.status == "submitted"
    events = RunFolder.open(outcome.path).events()
    assert [e.payload["status"] for e in events if e.type == "tool_call"] == ["ok", "worker_lost", *["ok"] * 5]
    (error,) = [e.payload for e in events if e.type == "error"]
    assert error["kind"] == "WorkerDiedError"


async def test_calls_that_lose_a_worker_together_lose_one(tiny: Path) -> None:
    bench = await Bench.start(stage(tiny), limits=Limits(threads=1))
    try:
        arguments = {"messages": [{"role": "user", "content": "who"}], "samples": 16, "max_new_tokens": 200}
        calls = [asyncio.create_task(bench.call("chat", arguments, seed=seed)) for seed in range(3)]
        await asyncio.sleep(0.05)
        os.kill(bench.pid or 0, signal.SIGKILL)
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {WorkerDiedError}
        assert bench.deaths == 1
        await asyncio.gather(*(bench.call("chat", {**arguments, "samples": 1}, seed=0) for _ in range(3)))
        assert bench.deaths == 1
    finally:
        await bench.close()


@pytest.mark.slow
async def test_three_deaths_end_the_run(tiny: Path, tmp_path: Path) -> None:
    outcome = await play_with_deaths(tiny, tmp_path, {0, 2, 4})
    assert outcome.status == "worker_died"
    assert outcome.result is not None
    assert outcome.result["answer"] is None
    assert outcome.result["scores"] == {"scored": False}
