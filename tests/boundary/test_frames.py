"""Whatever a worker is sent over a whole run holds nothing of the truth, of the host or of anybody's keys."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from marple.agent.bench import Bench
from marple.agent.configuration import RunConfig
from marple.agent.investigators.llm import LlmInvestigator
from marple.agent.models import ModelTurn, ScriptedModel
from marple.agent.run import RunOutcome, launch
from marple.sandboxes import Limits, stage
from marple.sandboxes.backend import TOOL_WORKER, BackendStatus, Launched, Program
from marple.sandboxes.process import ProcessBackend
from marple.sandboxes.starting import start_worker
from marple.tasks.case import find_case
from marple.tasks.materials import prepare
from tests.agent.turns import call, say, submit

pytestmark = pytest.mark.asyncio(loop_scope="session")

KEY = "sk-test-9d1c7b2ae4f60358"


@dataclass
class Tapped:
    """A started worker, with everything that passes in either direction written down."""

    launched: Launched
    passed: list[tuple[str, bytes]]

    def __post_init__(self) -> None:
        self.stamp: Mapping[str, Any] = self.launched.stamp
        self.pid, self.diagnostics = self.launched.pid, self.launched.diagnostics
        self.replies = asyncio.StreamReader()
        self._copying = asyncio.create_task(self._copy())

    async def _copy(self) -> None:
        while data := await self.launched.replies.read(2**16):
            self.passed.append(("from worker", data))
            self.replies.feed_data(data)
        self.replies.feed_eof()

    @property
    def cause(self) -> str | None:
        return getattr(self.launched, "cause", None)

    def send(self, frame: bytes) -> None:
        self.passed.append(("to worker", frame))
        self.launched.send(frame)

    async def wait(self) -> int:
        return await self.launched.wait()

    def kill(self) -> None:
        self.launched.kill()

    def close(self) -> None:
        self.launched.close()


@dataclass
class TappingBackend:
    """The process backend behind a tap."""

    passed: list[tuple[str, bytes]] = field(default_factory=list)
    name: str = "process"
    preference: int = 0
    contains_code: bool = False

    def probe(self) -> BackendStatus:
        return ProcessBackend().probe()

    async def launch(self, root: Path, limits: Limits, program: Program = TOOL_WORKER) -> Launched:
        return Tapped(await ProcessBackend().launch(root, limits, program), self.passed)


@dataclass(frozen=True)
class Recorded:
    outcome: RunOutcome
    passed: list[tuple[str, bytes]]
    truth: tuple[str, ...]
    places: tuple[str, ...]

    def leaks(self) -> set[str]:
        """Words of the host's in a frame to the worker; a word of the truth counts unless the worker said it first."""
        found, heard = set(), b""
        for direction, data in self.passed:
            if direction == "from worker":
                heard += data.lower()
                continue
            sent = data.lower()
            found |= {word for word in self.places if word.lower().encode() in sent}
            found |= {word for word in self.truth if _holds(word, sent) and not _holds(word, heard)}
        return found


def _holds(word: str, data: bytes) -> bool:
    return re.search(rb"(?<!\w)" + re.escape(word.lower().encode()) + rb"(?!\w)", data) is not None


async def play(case_id: str, runs: Path, *, script: Any = None) -> Recorded:
    """A run on a case of which everything that the worker is sent is written down."""
    case, backend = find_case(case_id), TappingBackend()
    materials = prepare(case)
    assert materials.truth is not None
    assert materials.target is not None
    staged = stage(materials.target, reference=materials.reference, forbidden=materials.truth.keywords)
    limits = Limits(threads=1)
    worker = await start_worker(staged, backend=backend, limits=limits)
    bench = Bench(staged, worker, backend="process", limits=limits)
    name = "scripted-blackbox" if script is None else "llm"
    config = replace(RunConfig.of(case=case_id, investigator=name, runs=runs, budget="calls=5"))
    player = None if script is None else LlmInvestigator(ScriptedModel(script))
    try:
        outcome = await launch(config, bench=bench, investigator=player)
    finally:
        await bench.close()
    organism = str(case.organism)
    host = (str(staged.root), str(materials.target), str(runs), str(Path.home()), str(Path.cwd()), runs.name)
    secrets = (KEY, outcome.run_id, case_id, organism, "hidden-goal", "hidden_goal", "organism")
    return Recorded(outcome, backend.passed, tuple(materials.truth.keywords), (*host, *secrets))


async def test_no_frame_to_the_worker_tells_it_anything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    recorded = await play("hidden-goal/nano-01", tmp_path / "somebodys-runs")
    sent = [data for direction, data in recorded.passed if direction == "to worker"]
    assert len(sent) >= 5
    assert recorded.truth
    assert recorded.leaks() == set()


async def test_the_search_finds_what_an_investigator_lets_slip(tmp_path: Path) -> None:
    """The control: a prompt that names the case, a path, and a word of the truth before the target has said it."""
    (word, *_) = prepare(find_case("hidden-goal/nano-01")).truth.keywords  # type: ignore[union-attr]
    slip = f"in {Path.home()} case hidden-goal/nano-01 is about {word}"

    def script(messages: Any) -> ModelTurn:
        ask = call("complete", text=slip, max_new_tokens=2)
        return say("", ask) if len(messages) == 1 else say("", submit())

    recorded = await play("hidden-goal/nano-01", tmp_path / "somebodys-runs", script=script)
    assert recorded.leaks() >= {str(Path.home()), "hidden-goal/nano-01", "nano-01", word}
