"""Investigators that the tests of the executor need, found as any plugin is: one file each in a folder."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from marple.agent import investigators
from marple.agent.evaluation.arms import Arm
from marple.agent.evaluation.evaluating import Evaluated, EvaluationOptions, evaluate, prepare
from marple.agent.evaluation.executor import ExecutorOptions, Update
from marple.agent.evaluation.plan import Plan
from marple.agent.evaluation.suite import Suite
from marple.tasks.case import find_case

PLAYERS = Path(__file__).with_name("players")

Evaluate = Callable[..., Any]


@pytest.fixture
def players() -> Iterator[None]:
    """The investigators in ``players/`` beside the usual ones."""
    investigators.__path__.append(str(PLAYERS))
    importlib.invalidate_caches()
    yield
    investigators.__path__.remove(str(PLAYERS))
    for file in PLAYERS.glob("*.py"):
        sys.modules.pop(f"{investigators.__name__}.{file.stem}", None)


@pytest.fixture
def plan_of() -> Callable[..., Plan]:
    """A plan of arms by name on hidden-goal cases of nano organisms."""

    def make(*arms: str, cases: tuple[str, ...] = ("nano-03",), epochs: int = 1, **options: Any) -> Plan:
        suite = Suite("test", [find_case(f"hidden-goal/{case}") for case in cases], **options)
        return Plan.of(suite, [Arm(name, name) for name in arms], epochs)

    return make


@pytest.fixture
def play(players: None, tmp_path: Path) -> Evaluate:
    """Plays a plan into ``tmp_path / "out"`` and returns how it stands and what was heard."""

    async def start(
        plan: Plan, *, hear: Any = None, drain: Any = None, **options: Any
    ) -> tuple[Evaluated, list[Update]]:
        from marple.agent.draining import Drain

        heard: list[Update] = []

        def listen(update: Update) -> None:
            heard.append(update)
            if hear is not None:
                hear(update)

        options.setdefault("limits", ExecutorOptions(max_parallel=4))
        prepared = prepare(plan, tmp_path / "out", EvaluationOptions(**options))
        return await evaluate(prepared, hear=listen, drain=drain or Drain()), heard

    return start
