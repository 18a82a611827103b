"""A run that somebody else pauses, lets go on, or cancels, wherever it is by then."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from marple.agent.bench import Bench
from marple.agent.benches import open_bench
from marple.agent.configuration import RunConfig
from marple.agent.investigators.llm import LlmInvestigator
from marple.agent.ledger import used_by
from marple.agent.models import AssistantMessage, Message, ModelTurn, ScriptedModel, ToolCall
from marple.agent.run import RunOutcome, Watcher, launch, resume
from marple.agent.supervising import cancel_interrupted
from marple.errors import UsageError
from marple.tasks.materials import Materials
from marple.traces import Event, RunFolder
from marple.traces.control import request

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = {"messages": [{"role": "user", "content": "who is it"}], "samples": 2, "max_new_tokens": 4}
LONG = {"prompts": [f"who is {number}" for number in range(500)], "samples": 8, "max_new_tokens": 40}
ANSWER = {"nothing_hidden": 0.7, "candidates": [], "claims": [], "summary": "done"}


def call(name: str, arguments: dict[str, Any]) -> ModelTurn:
    return ModelTurn(tool_calls=(ToolCall.of(name, arguments, id="c"),))


def turns(*done: ModelTurn) -> Callable[[Sequence[Message]], ModelTurn]:
    """A script by the number of turns taken, so that a resumed run goes on with it."""
    return lambda messages: done[sum(isinstance(message, AssistantMessage) for message in messages)]


class Outsider(Watcher):
    """Asks for something as soon as the run comes to some event."""

    def __init__(self, at: str, wanted: Any, then: Callable[[Path], Awaitable[None]] | None = None) -> None:
        self.at, self.wanted, self.then = at, wanted, then
        self.path = Path()
        self.later: asyncio.Task[None] | None = None

    def launched(self, folder: RunFolder) -> None:
        self.path = folder.path
        if self.at == "launch":
            request(self.path, self.wanted, by="a test")

    def on_event(self, event: Event) -> None:
        said = event.payload.get("tool") or event.payload.get("did") or ""
        if f"{event.type} {said}".strip() == self.at:
            request(self.path, self.wanted, by="a test")
            if self.then is not None:
                self.later = asyncio.ensure_future(self.then(self.path))


def config(target: Path, runs: Path, **options: Any) -> RunConfig:
    return RunConfig.of(target=str(target), investigator="llm", runs=runs, **options)


def player(*done: ModelTurn) -> LlmInvestigator:
    return LlmInvestigator(ScriptedModel(turns(*done)))


def check_cancelled(outcome: RunOutcome) -> list[Event]:
    assert outcome.status == "cancelled"
    folder = RunFolder.open(outcome.path)
    assert folder.result is not None
    assert (folder.result["status"], folder.result["scores"], folder.result["truth"]) == (
        "cancelled",
        {"scored": False},
        None,
    )
    assert folder.status == "done"
    assert not (outcome.path / "lock").exists()
    events = folder.events()
    (cancel,) = [event for event in events if event.type == "control" and event.payload["did"] == "cancel"]
    assert [event.type for event in events if int(event.id[1:]) > int(cancel.id[1:])] == ["score", "run_end"]
    return events


@pytest.mark.parametrize("moment", ["launch", "model_call", "tool_call chat"])
async def test_a_run_on_a_shared_bench_is_cancelled_and_the_bench_goes_on(
    tiny: Path, bench: Bench, tmp_path: Path, moment: str
) -> None:
    pid = bench.pid
    chats = [call("chat", CHAT)] * 1000
    long = config(tiny, tmp_path, budget="turns=2000,calls=2000")
    outcome = await launch(long, investigator=player(*chats), bench=bench, watcher=Outsider(moment, "cancel"))
    events = check_cancelled(outcome)
    assert sum(event.type == "tool_call" for event in events) < 1000
    assert (bench.pid, bench.deaths) == (pid, 0)
    assert (await bench.call("chat", CHAT, seed=1)).data
    with pytest.raises(UsageError, match="is done"):
        request(outcome.path, "go")
    again = await resume(outcome.path, investigator=player(), bench=bench)
    assert again.status == "cancelled"
    assert RunFolder.open(outcome.path).events() == events


async def test_a_long_call_is_dropped_and_said_to_be(tiny: Path, bench: Bench, tmp_path: Path) -> None:
    pid, began = bench.pid, time.monotonic()
    outcome = await launch(
        config(tiny, tmp_path),
        investigator=player(call("chat", CHAT), call("battery", LONG)),
        bench=bench,
        watcher=Outsider("call_start battery", "cancel"),
    )
    events = check_cancelled(outcome)
    (begun,) = [event for event in events if event.type == "call_start" and event.payload.get("tool") == "battery"]
    (cancel,) = [event for event in events if event.type == "control"]
    assert cancel.payload["under_way"] == [begun.id]
    assert cancel.payload["by"] == "a test"
    assert [event.payload["tool"] for event in events if event.type == "tool_call"] == ["chat"]
    assert outcome.result is not None
    assert (outcome.result["usage"]["calls"], outcome.result["answer"]) == (1, None)
    # The worker has forgotten the call too: it answers at once, which the battery would not have let it.
    assert (await bench.call("chat", CHAT, seed=2)).data
    assert time.monotonic() - began < 60
    assert bench.pid == pid


@pytest.fixture
def staging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[Path]]:
    """What is staged now; nobody else stages in this test's directory."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return lambda: list((tmp_path / "scratch").glob("*/*"))


async def test_an_own_worker_and_its_files_are_gone_with_a_cancelled_run(
    tiny: Path, tmp_path: Path, staging: Callable[[], list[Path]]
) -> None:
    outcome = await launch(
        config(tiny, tmp_path),
        investigator=player(call("battery", LONG)),
        watcher=Outsider("call_start battery", "cancel"),
    )
    events = check_cancelled(outcome)
    assert events[0].payload["sandbox"]["stamp"]
    assert staging() == []


@pytest.mark.parametrize("delay", [0.0, 0.05, 0.3])
async def test_a_run_whose_worker_is_only_being_started_is_cancelled(
    tiny: Path, tmp_path: Path, delay: float, staging: Callable[[], list[Path]]
) -> None:
    class Early(Outsider):
        def launched(self, folder: RunFolder) -> None:
            asyncio.get_running_loop().call_later(delay, request, folder.path, "cancel")

    long = player(call("battery", LONG))
    outcome = await launch(config(tiny, tmp_path), investigator=long, watcher=Early("", "cancel"))
    assert [event.type for event in check_cancelled(outcome)][0] == "run_start"
    assert staging() == []


async def test_what_is_being_staged_when_a_run_is_cancelled_is_removed(
    tiny: Path, tmp_path: Path, staging: Callable[[], list[Path]]
) -> None:
    opening = asyncio.ensure_future(open_bench(Materials(tiny)))
    while not staging() and not opening.done():
        await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait({opening})
    assert opening.cancelled()
    assert staging() == []


async def test_an_answer_before_the_cancel_is_kept_but_never_scored(tiny: Path, bench: Bench, tmp_path: Path) -> None:
    outcome = await launch(
        config(tiny, tmp_path),
        investigator=player(call("chat", CHAT), call("submit", ANSWER)),
        bench=bench,
        watcher=Outsider("answer", "pause", then=_cancel_soon),
    )
    check_cancelled(outcome)
    assert outcome.result is not None
    assert outcome.result["answer"]["nothing_hidden"] == 0.7


async def _cancel_soon(path: Path) -> None:
    await asyncio.sleep(0.4)
    request(path, "cancel")


async def test_a_pause_keeps_the_worker_and_stops_the_clock(tiny: Path, bench: Bench, tmp_path: Path) -> None:
    pid = bench.pid

    async def go_on(path: Path) -> None:
        while not any(event.type == "control" for event in RunFolder.open(path).events()):
            await asyncio.sleep(0.02)
        before = len(RunFolder.open(path).events())
        await asyncio.sleep(1.5)
        assert len(RunFolder.open(path).events()) == before
        request(path, "go", by="another")

    watcher = Outsider("tool_call chat", "pause", then=go_on)
    outcome = await launch(
        config(tiny, tmp_path),
        investigator=player(call("chat", CHAT), call("submit", ANSWER)),
        bench=bench,
        watcher=watcher,
    )
    assert watcher.later is not None
    await watcher.later
    assert outcome.status == "submitted"
    assert outcome.result is not None
    events = RunFolder.open(outcome.path).events()
    pause, go = [event for event in events if event.type == "control"]
    assert (pause.payload["did"], pause.payload["by"]) == ("pause", "a test")
    assert (go.payload["did"], go.payload["by"], go.payload["idle"]) == ("go", "another", True)
    wall = events[-1].ts - events[0].ts
    assert outcome.result["usage"]["seconds"] == pytest.approx(wall - (go.ts - pause.ts), abs=0.2)
    assert go.ts - pause.ts > 1.4
    # While it lasts the clock stands, and the seconds of the budget with it.
    until = [event for event in events if int(event.id[1:]) <= int(pause.id[1:])]
    assert used_by(until, now=pause.ts + 1000).seconds == used_by(until).seconds
    assert bench.pid == pid


@pytest.mark.parametrize("moment", ["run_start", "tool_call chat"])
async def test_a_paused_run_whose_process_is_stopped_is_interrupted_and_goes_on_later(
    tiny: Path, bench: Bench, tmp_path: Path, moment: str
) -> None:
    from marple.agent.draining import Drain

    drain = Drain()

    async def stop(path: Path) -> None:
        while not any(event.type == "control" for event in RunFolder.open(path).events()):
            await asyncio.sleep(0.02)
        drain.ask("a test")

    script = (call("chat", CHAT), call("chat", CHAT), call("submit", ANSWER))
    watcher = Outsider(moment, "pause", then=stop)
    first = await launch(
        config(tiny, tmp_path), investigator=player(*script), bench=bench, watcher=watcher, drain=drain
    )
    assert first.status == "interrupted"
    assert RunFolder.open(first.path).events()[-1].type == "control"  # the step that waited has not begun
    request(first.path, "go")
    done = await resume(first.path, investigator=player(*script), bench=bench)
    assert done.status == "submitted"
    events = RunFolder.open(done.path).events()
    places = [(e.payload["turn_number"], e.payload["index"]) for e in events if e.type == "tool_call"]
    assert places == [(1, 0), (2, 0), (3, 0)]
    assert all(event.payload["attempt"] == 1 for event in events if event.type == "tool_call")


async def test_a_run_that_nobody_plays_is_finished_as_cancelled(tiny: Path, bench: Bench, tmp_path: Path) -> None:
    from marple.agent.draining import Drain

    drain = Drain()

    class Stopping(Outsider):
        def on_event(self, event: Event) -> None:
            if event.type == "tool_call":
                drain.ask("a test")

    script = (call("chat", CHAT), call("submit", ANSWER))
    first = await launch(
        config(tiny, tmp_path), investigator=player(*script), bench=bench, watcher=Stopping("", "go"), drain=drain
    )
    assert first.status == "interrupted"
    await asyncio.sleep(1.0)
    with (first.path / "events.jsonl").open("a") as file:
        file.write('{"id": "E99"')
    request(first.path, "cancel", by="a test")
    result = cancel_interrupted(first.path)
    check_cancelled(RunOutcome(first.run_id, first.path, result["status"], result))
    assert result["usage"]["calls"] == 1
    assert result["usage"]["seconds"] == pytest.approx(
        used_by(RunFolder.open(first.path).events()[:-3]).seconds, abs=0.01
    )
    assert cancel_interrupted(first.path) == {"schema_version": 1, **result}


async def test_a_run_to_be_cancelled_is_not_resumed(tiny: Path, bench: Bench, tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, "r1", config(tiny, tmp_path).spec(player())) as folder:
        request(folder.path, "cancel")
    outcome = await resume(tmp_path / "r1", investigator=player(call("chat", CHAT)), bench=bench)
    events = check_cancelled(outcome)
    assert not any(event.type == "model_call" for event in events)


async def test_an_unreadable_request_does_not_hold_a_run(tiny: Path, bench: Bench, tmp_path: Path) -> None:
    class Vandal(Outsider):
        def launched(self, folder: RunFolder) -> None:
            (folder.path / "control.jsonl").mkdir()

    outcome = await launch(
        config(tiny, tmp_path),
        investigator=player(call("chat", CHAT), call("submit", ANSWER)),
        bench=bench,
        watcher=Vandal("", "go"),
    )
    assert outcome.status == "submitted"


def members_of(path: Path) -> list[RunFolder]:
    return [RunFolder.open(path.with_name(f"{path.name}-m{number}")) for number in (1, 2)]


def ensemble(target: Path, runs: Path) -> RunConfig:
    return RunConfig.of(
        target=str(target),
        investigator="ensemble",
        members=2,
        member_investigator="scripted-blackbox",
        member_budget="calls=2",
        runs=runs,
    )


class OutsiderOfMembers(Watcher):
    """Asks something of an ensemble as soon as both of its members have made a call."""

    def __init__(self, wanted: Any) -> None:
        self.wanted = wanted
        self.path = Path()

    def launched(self, folder: RunFolder) -> None:
        self.path = folder.path

    async def ask(self) -> None:
        while not all(any(e.type == "call_start" for e in one.events()) for one in await self.members()):
            await asyncio.sleep(0.02)
        request(self.path, self.wanted, by="a test")

    async def members(self) -> list[RunFolder]:
        while len(list(self.path.parent.glob(f"{self.path.name or 'none'}-m*/run.json"))) < 2:
            await asyncio.sleep(0.02)
        return members_of(self.path)


async def test_members_wait_with_their_ensemble_and_go_on_with_it(tiny: Path, bench: Bench, tmp_path: Path) -> None:
    watcher = OutsiderOfMembers("pause")
    playing = asyncio.ensure_future(launch(ensemble(tiny, tmp_path), bench=bench, watcher=watcher))
    await watcher.ask()

    def controls(folder: RunFolder) -> list[str]:
        return [event.payload["did"] for event in folder.events() if event.type == "control"]

    held = [*await watcher.members(), RunFolder.open(watcher.path)]
    while any(controls(RunFolder.open(one.path)) != ["pause"] for one in held):
        assert not playing.done()
        await asyncio.sleep(0.05)
    counts = [len(RunFolder.open(one.path).events()) for one in held]
    await asyncio.sleep(1)
    assert [len(RunFolder.open(one.path).events()) for one in held] == counts
    request(watcher.path, "go", by="another")
    outcome = await playing
    assert outcome.status == "submitted"
    for one in held:
        assert controls(RunFolder.open(one.path))[:2] == ["pause", "go"]
    assert outcome.result is not None
    assert all(one.result and one.result["status"] == "limit:calls" for one in members_of(outcome.path))
    # What was waited counts for nobody.
    events = RunFolder.open(outcome.path).events()
    wall = events[-1].ts - events[0].ts
    assert used_by(events).seconds < wall - 0.9


async def test_members_are_cancelled_with_their_ensemble(tiny: Path, bench: Bench, tmp_path: Path) -> None:
    watcher = OutsiderOfMembers("cancel")
    playing = asyncio.ensure_future(launch(ensemble(tiny, tmp_path), bench=bench, watcher=watcher))
    await watcher.ask()
    check_cancelled(await playing)
    for folder in members_of(watcher.path):
        assert folder.result is not None
        assert folder.result["status"] == "cancelled"
        assert not (folder.path / "lock").exists()
    assert (await bench.call("chat", CHAT, seed=1)).data
