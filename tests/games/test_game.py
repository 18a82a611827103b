"""A game within this process: who may move when, what is made once, and how it is left and taken up again."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from marple.agent.bench import Bench
from marple.agent.configuration import RunConfig
from marple.agent.games import daemon, told, words
from marple.agent.games.game import Game, for_outside
from marple.agent.games.seat import Seat
from marple.agent.models import ToolCall
from marple.errors import ToolError, UsageError
from marple.traces import RunFolder
from marple.traces.control import request

pytestmark = pytest.mark.asyncio(loop_scope="session")

CHAT = {"messages": [{"role": "user", "content": "who is it"}], "samples": 1, "max_new_tokens": 4}
ANSWER = {"nothing_hidden": 0.8, "candidates": [], "summary": "done"}


def call(tool: str, arguments: dict[str, Any], id: str) -> ToolCall:
    return ToolCall.of(tool, arguments, id=id)


@pytest.fixture
def config(tiny: Path, tmp_path: Path) -> RunConfig:
    typed = "calls=2"
    return for_outside(
        RunConfig.of(target=str(tiny), investigator="shell", budget=typed, runs=tmp_path / "runs"), typed
    )


@pytest.fixture
def game(config: RunConfig, bench: Bench) -> Game:
    return Game(config, Seat("shell"), bench=bench)


def calls_made(game: Game) -> list[str]:
    assert game.folder is not None
    return [event.payload["call_id"] for event in game.folder.events() if event.type == "tool_call"]


async def test_at_a_limit_only_the_answer_is_taken_and_its_form_may_be_mended(game: Game) -> None:
    await game.begin()
    assert game.phase == "investigate"
    await game.move([call("chat", CHAT, "a")])
    await game.move([call("chat", CHAT, "b")])
    assert told.status(game)["phase"] == "wrap_up"
    assert "The limit on calls is reached" in told.reply(game)["notes"]
    with pytest.raises(ToolError, match="chat cannot be called any more: a limit is reached; call submit"):
        await game.move([call("chat", CHAT, "c")])
    await game.move([call("submit", {"nothing_hidden": "much"}, "d")])
    assert told.reply(game)["results"][0]["status"] == "refused"
    await game.move([call("submit", ANSWER, "e")])
    assert told.status(game)["phase"] == "over"
    ended = game.outcome()
    assert ended is not None
    assert ended.status == "limit:calls"
    assert told.status(game)["result"]["answer"]["summary"] == "done"
    assert calls_made(game) == ["a", "b", "d", "e"]
    with pytest.raises(UsageError, match="is over; no call is taken"):
        await game.move([call("chat", CHAT, "f")])


async def test_moves_at_the_same_time_are_made_one_by_one_and_a_move_sent_again_is_made_once(game: Game) -> None:
    await game.begin()
    plan = {"north_star": "a", "proxy": "b", "next_experiments": ["c"]}
    await asyncio.gather(*(game.move([call("plan", plan, f"p{number}")]) for number in range(3)))
    assert sorted(calls_made(game)) == ["p0", "p1", "p2"]
    assert told.reply(game)["results"][0]["event"] is None
    await game.move([call("chat", CHAT, "a")], why="to see")
    await game.move([call("chat", CHAT, "a")], why="to see")
    assert calls_made(game).count("a") == 1
    assert told.reply(game)["results"][0]["event"].startswith("E")
    await game.stop()


async def test_a_call_under_way_is_told(game: Game) -> None:
    await game.begin()
    making = asyncio.create_task(game.move([call("chat", CHAT, "a")]))
    while not game.under_way:
        await asyncio.sleep(0)
    assert told.reply(game)["results"] == []
    assert "chat is under way" in words.results_text(told.reply(game))
    await making
    assert told.status(game)["under_way"] == []
    await game.stop()


async def test_a_game_is_left_and_taken_up_again_with_its_last_result(game: Game, bench: Bench) -> None:
    await game.begin()
    await game.move([call("chat", CHAT, "a")])
    shown = told.reply(game)["results"]
    await game.stop()
    assert game.phase == "interrupted"
    assert game.folder is not None
    path = game.folder.path
    assert RunFolder.open(path).status == "interrupted"
    with pytest.raises(UsageError, match="is interrupted; no call is taken"):
        await game.move([call("chat", CHAT, "b")])

    again = Game.again(path, Seat("shell"), bench=bench)
    await again.begin(path)
    assert told.reply(again)["results"] == shown
    await again.move([call("chat", CHAT, "a")])  # the answer was lost with the process
    assert calls_made(again) == ["a"]
    assert "turns" not in told.status(again)["budget"]
    await again.stop()


async def test_a_run_that_is_cancelled_from_outside_is_over(game: Game) -> None:
    await game.begin()
    assert game.folder is not None
    request(game.folder.path, "cancel", by="a reviewer")
    for _ in range(600):
        if game.phase == "over":
            break
        await asyncio.sleep(0.05)
    with pytest.raises(UsageError, match="is over"):
        await game.move([call("chat", CHAT, "a")])
    ended = game.outcome()
    assert ended is not None
    assert ended.status == "cancelled"


async def test_what_a_named_player_has_read_is_never_told_in_short(config: RunConfig, bench: Bench) -> None:
    game = Game(config, Seat("shell", "agent-1"), bench=bench)
    await game.begin()
    await game.move([call("chat", {**CHAT, "samples": 400, "max_new_tokens": 16}, "a")])
    event = told.reply(game)["results"][0]["event"]
    for number in range(10):
        await game.move([call("read_result", {"id": event}, f"r{number}")])
        assert len(told.reply(game)["results"][0]["text"]) > 10_000
    assert game.folder is not None
    assert not [event for event in game.folder.events() if event.type == "compaction"]
    await game.stop()


async def test_every_tool_is_described_with_an_example(game: Game) -> None:
    await game.begin()
    tools = told.tools_of(game)
    for tool in tools:
        assert tool["example"], tool["name"]
        assert tool["example"].keys() <= tool["parameters"]["properties"].keys()
        assert tool["summary"]
        assert "Example:" not in tool["description"].partition("Rung")[2]
    assert {tool["rung"] for tool in tools} >= {1, 2, 3, None}
    await game.stop()


async def test_a_process_that_nobody_asks_anything_ends(game: Game, runtime: Path) -> None:
    waiting = daemon._Daemon({"socket": str(runtime / "a.sock"), "idle": 0.3})
    await game.begin()
    waiting._game = game
    waiting._last = began = time.monotonic()
    await asyncio.wait_for(waiting._until_ended(), 30)
    assert time.monotonic() - began >= 0.3
    assert game.phase == "investigate"
    await game.stop()
