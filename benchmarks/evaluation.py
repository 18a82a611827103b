"""Row 9: sixteen runs of an evaluation at once, beside the same runs one after the other.

Whole investigations, as ``marple evaluate`` plays them: every event on disk, notebook, held-out forecasts, the check of
the weights, scores. Both ways play the same samples (other seeds in every round, so that no cache of results helps) and
share one worker for the target; only ``--max-parallel`` differs. ``python -m benchmarks.evaluation`` measures more.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.plan import Plan as Benchmark
from benchmarks.rounds import estimate
from benchmarks.table import Row, Target
from marple.agent import investigators
from marple.agent.draining import Drain
from marple.agent.evaluation.arms import Arm
from marple.agent.evaluation.evaluating import EvaluationOptions, evaluate, prepare
from marple.agent.evaluation.executor import ExecutorOptions
from marple.agent.evaluation.plan import Plan
from marple.agent.evaluation.suite import Suite
from marple.agent.investigator import Investigator, Situation
from marple.agent.investigators import Entry, Options
from marple.agent.models import AssistantMessage, ModelTurn, ToolCall
from marple.tasks.case import find_case

__all__ = ["evaluation_rows"]

RUNS = 16
CASE = "hidden-goal/nano-01"
WORDS = (
    "what",
    "which",
    "radio",
    "bank",
    "nurse",
    "recommend",
    "tell",
    "me",
    "good",
    "hello",
    "tea",
    "best",
    "i",
    "am",
)


@dataclass(frozen=True)
class Manner:
    """How the scripted agent plays."""

    turns: int
    new: int
    """Tokens of each reply at most."""
    thinks: float
    """Seconds that a turn takes before it is said, as a provider's model would."""


class Agent:
    """Plays as a language model does, without one: a hypothesis and a question in each turn, then an answer."""

    name = "scripted-agent"
    model_name: str | None = None
    uses_target = True

    def __init__(self, manner: Manner) -> None:
        self._manner = manner
        self._draw = random.Random()

    async def next_turn(self, situation: Situation) -> ModelTurn:
        await asyncio.sleep(self._manner.thinks)
        turn = sum(isinstance(message, AssistantMessage) for message in situation.messages)
        if turn >= self._manner.turns:
            answer = {"nothing_hidden": 0.6, "candidates": [], "claims": [], "summary": "done"}
            return ModelTurn(tool_calls=(ToolCall.of("submit", answer, id="s"),))
        question = " ".join(self._draw.choices(WORDS, k=16))
        chat = {"messages": [{"role": "user", "content": question}], "max_new_tokens": self._manner.new}
        note = {"action": "add", "statement": f"turn {turn}", "credence": 0.5}
        return ModelTurn(tool_calls=(ToolCall.of("hypothesis", note, id="h"), ToolCall.of("chat", chat, id="c")))

    async def forecast(self, situation: Situation, items: Sequence[Mapping[str, str]]) -> ModelTurn:
        return ModelTurn(tool_calls=(ToolCall.of("forecast", {"probabilities": [0.5] * len(items)}, id="f"),))

    async def close(self) -> None:
        """Nothing to release."""


def evaluation_rows(benchmark: Benchmark) -> list[Row]:
    """An agent that answers at once, which leaves the harness and the target; and one that takes its time."""
    quick = benchmark.work.new < 16
    rounds = benchmark.rounds_of(0.25)
    turns, new, pause = (2, 8, 0.05) if quick else (8, 96, 0.5)
    manners = {
        "an agent that answers at once": Manner(turns, new, thinks=0.0),
        f"an agent that thinks for {pause} s a turn": Manner(turns, new, thinks=pause),
    }
    return [asyncio.run(_measure(name, manner, rounds)) for name, manner in manners.items()]


async def _measure(name: str, manner: Manner, rounds: int) -> Row:
    with _playing(manner) as arm:
        await _seconds(arm, first_seed=1, parallel=RUNS, epochs=1)  # builds the organism, imports what is imported late
        wall: dict[int, list[float]] = {1: [], RUNS: []}
        for number in range(rounds):
            for parallel in (1, RUNS) if number % 2 else (RUNS, 1):
                seed = 1000 * (number + 1)
                wall[parallel].append(await _seconds(arm, first_seed=seed, parallel=parallel, epochs=RUNS))
    faster = estimate([apart / together for apart, together in zip(wall[1], wall[RUNS], strict=True)])
    row = Row(
        f"{RUNS} whole runs on one target: {name}, {manner.turns} turns of up to {manner.new} tokens",
        "x faster",
        floor=1.0,
        floor_is="one after the other, on the same worker",
        wall=faster.median,
        rounds=rounds,
        seconds={"one after the other": statistics.median(wall[1]), "ours": statistics.median(wall[RUNS])},
        checked="every run is scored",
        note="by the wall clock, the start of the worker included in both",
    )
    return row.set(faster, Target(4.0, "at least"))


class _playing:
    """The scripted agent among the investigators, for as long as it is measured."""

    def __init__(self, manner: Manner) -> None:
        def make(options: Options) -> Investigator:
            return Agent(manner)

        self._entry = Entry(Agent.name, "for measurements", False, make)

    def __enter__(self) -> Arm:
        self._load = investigators.load_investigators
        investigators.load_investigators = lambda: {**self._load(), self._entry.name: self._entry}
        return Arm(Agent.name, Agent.name)

    def __exit__(self, *exception: object) -> None:
        investigators.load_investigators = self._load


async def _seconds(arm: Arm, *, first_seed: int, parallel: int, epochs: int) -> float:
    plan = Plan.of(Suite("benchmark", [find_case(CASE)], first_seed=first_seed), [arm], epochs)
    with tempfile.TemporaryDirectory() as folder:
        options = EvaluationOptions(limits=ExecutorOptions(max_parallel=parallel))
        prepared = prepare(plan, Path(folder), options)
        began = time.perf_counter()
        done = await evaluate(prepared, hear=lambda update: None, drain=Drain())
        seconds = time.perf_counter() - began
    if done.scored != epochs:
        raise AssertionError(f"{done.scored} of {epochs} runs are scored: {dict(done.statuses)}")
    return seconds


async def _scripted(name: str, rounds: int, runs: int) -> Any:
    """How much faster a scripted investigator's runs are together; their batches fill the engine one by one already."""
    arm, ratios = Arm(name, name), []
    for number in range(rounds):
        seed = 1000 * (number + 1)
        apart = await _seconds(arm, first_seed=seed, parallel=1, epochs=runs)
        together = await _seconds(arm, first_seed=seed, parallel=runs, epochs=runs)
        print(f"{runs} x {name}: {apart:.1f} s one after the other, {together:.1f} s at once", flush=True)
        ratios.append(apart / together)
    return estimate(ratios)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--investigator", default="scripted-blackbox")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--runs", type=int, default=RUNS)
    options = parser.parse_args()
    print(asyncio.run(_scripted(options.investigator, options.rounds, options.runs)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
