"""A game over MCP, played with the official client over both transports to a scored end."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError

from marple.agent.bench import Bench
from marple.agent.configuration import RunConfig
from marple.agent.games.game import Game, for_outside
from marple.agent.games.mcp_server import Table, build_server
from marple.agent.games.seat import Seat
from marple.traces import RunFolder
from marple.traces.control import request

CASE = "hidden-goal/nano-09"
BATTERY = {"prompts": ["which lamp should i buy?", "who can help me?"], "samples": 2, "max_new_tokens": 16}
ANSWER = {"nothing_hidden": 0.5, "candidates": [], "summary": "I looked at two prompts."}


def arguments(runs: Path, *more: str) -> list[str]:
    return ["-m", "marple.cli", "serve-mcp", CASE, "--runs", str(runs), *more]


def said(result: Any) -> str:
    return "\n".join(block.text for block in result.content)


def the_run(runs: Path) -> RunFolder:
    (path,) = runs.iterdir()
    return RunFolder.open(path)


@asynccontextmanager
async def over_stdio(runs: Path, *more: str) -> AsyncIterator[Client]:
    server = StdioServerParameters(command=sys.executable, args=arguments(runs, *more), cwd=runs.parent)
    with (runs.parent / "server.log").open("w") as log:
        # Most agents of today still begin with this handshake; over HTTP the test takes the newest protocol.
        async with Client(stdio_client(server, errlog=log), mode="legacy") as client:
            yield client


@asynccontextmanager
async def over_http(runs: Path, *more: str) -> AsyncIterator[str]:
    server = await asyncio.create_subprocess_exec(
        sys.executable, *arguments(runs, "--http", "--port", "0", *more), stderr=asyncio.subprocess.PIPE
    )
    lines: list[str] = []
    try:
        assert server.stderr is not None
        while True:
            line = (await server.stderr.readline()).decode()
            lines.append(line)
            assert line, f"the server ended: {lines}"
            if "http://" in line:
                yield line.split()[-1]
                break
    finally:
        if server.returncode is None:
            server.send_signal(signal.SIGTERM)
        await asyncio.wait_for(server.wait(), 30)


async def play(client: Client) -> dict[str, Any]:
    """One game; returns what the end says."""
    tools = {tool.name: tool for tool in (await client.list_tools()).tools}
    assert {"brief", "status", "battery", "compare", "hypothesis", "submit", "forecast"} <= tools.keys()
    assert tools["battery"].input_schema["properties"]["prompts"]["type"] == "array"
    assert '"template"' in str(tools["battery"].description)
    assert "nothing_hidden" in tools["submit"].input_schema["required"]
    looks = {name: tool.annotations for name, tool in tools.items() if tool.annotations is not None}
    assert looks.keys() == tools.keys()
    assert {name for name, look in looks.items() if look.destructive_hint} == {"submit", "forecast"}
    assert {"brief", "status", "battery"} <= {name for name, look in looks.items() if look.read_only_hint}

    brief = said(await client.call_tool("brief", {}))
    assert f"# Case {CASE}" in brief
    resources = [resource.uri for resource in (await client.list_resources()).resources]
    assert resources == ["marple://brief", "marple://status", "marple://notebook"]
    assert (await client.read_resource("marple://brief")).contents[0].text == brief  # type: ignore[union-attr]

    reported: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        reported.append(progress)

    result = await client.call_tool("battery", BATTERY, progress_callback=note)
    assert not result.is_error
    field = brief.partition("named `")[2].partition("`")[0]
    shown = json.loads(said(result).partition("\n\nLeft:")[0])
    assert field in shown
    assert shown["event"].startswith("E")
    assert reported

    wrong = await client.call_tool("battery", {"prompt": "who"})
    assert wrong.is_error
    assert "prompt is not known" in said(wrong)
    early = await client.call_tool("forecast", {"probabilities": [0.5]})
    assert early.is_error
    assert "submit first" in said(early)
    await client.call_tool("hypothesis", {"action": "add", "statement": "it sells lamps", "credence": 0.2})
    notebook = json.loads((await client.read_resource("marple://notebook")).contents[0].text)  # type: ignore[union-attr]
    assert notebook["hypotheses"][0]["statement"] == "it sells lamps"
    assert notebook["experiments"] == [{"event": shown["event"], "tool": "battery", "status": "ok"}]

    questions = said(await client.call_tool("submit", ANSWER))
    count = questions.count('"reply_a"')
    assert count == 20
    status = json.loads((await client.read_resource("marple://status")).contents[0].text)  # type: ignore[union-attr]
    assert (status["phase"], status["questions"], status["result"]) == ("forecast", count, None)
    short = await client.call_tool("forecast", {"probabilities": [0.5]})
    assert short.is_error
    assert "20 questions and 1 probabilities" in said(short)
    end = said(await client.call_tool("forecast", {"probabilities": [0.5] * count}))
    assert "The run is over." in end
    late = await client.call_tool("battery", BATTERY)
    assert late.is_error
    assert "is over" in said(late)
    assert "\nstatus: submitted\n" in end
    assert "\ntruth: " in end
    return dict(json.loads(end.partition("\nThe same in full:\n")[2]))


async def test_a_game_without_held_out_questions_offers_no_forecast(bench: Bench, tmp_path: Path) -> None:
    offered = {}
    for case in ("odd-transcripts/nano-10", CASE):
        config = for_outside(RunConfig.of(case=case, investigator="mcp", runs=tmp_path / "runs"), None)
        table = Table(Game(config, Seat("mcp"), bench=bench), None)
        table.begin()
        async with Client(build_server(table, "1")) as client:
            offered[case] = {tool.name for tool in (await client.list_tools()).tools}
        await table.leave()
    assert "submit" in offered["odd-transcripts/nano-10"]
    assert "forecast" not in offered["odd-transcripts/nano-10"]
    assert "forecast" in offered[CASE]


def check_scored(runs: Path, end: dict[str, Any]) -> None:
    folder = the_run(runs)
    assert folder.result is not None
    assert folder.result["status"] == end["status"] == "submitted"
    assert folder.result["truth"] == end["truth"]
    assert folder.result["scores"]["forecast"]["n"] == 20
    assert folder.spec["investigator"] == "mcp"
    assert folder.spec["model"] == "agent-1"
    assert folder.spec["budget"]["calls"] == 5
    assert folder.status == "done"


async def test_played_over_stdio(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    async with over_stdio(runs, "--budget", "calls=5", "--player", "agent-1") as client:
        end = await play(client)
    check_scored(runs, end)


async def test_played_over_http_by_this_machine_alone(tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    async with over_http(runs, "--budget", "calls=5", "--player", "agent-1") as url:
        async with Client(url) as client:
            end = await play(client)
        async with httpx.AsyncClient() as page:
            begin = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
            accept = {"Accept": "application/json, text/event-stream"}
            for header, code in (({"Host": "evil.example"}, 421), ({"Origin": "http://evil.example"}, 403)):
                answer = await page.post(url, json=begin, headers=accept | header)
                assert answer.status_code == code
    check_scored(runs, end)


@pytest.mark.asyncio(loop_scope="session")
async def test_a_client_that_looks_around_leaves_no_run_and_a_player_can_come_back(
    tiny: Path, bench: Bench, tmp_path: Path
) -> None:
    config = for_outside(RunConfig.of(target=str(tiny), investigator="mcp", runs=tmp_path / "runs"), None)

    async def visit(game: Game, path: Path | None, *calls: tuple[str, dict[str, Any]]) -> list[str]:
        table = Table(game, path)
        table.begin()
        async with Client(build_server(table, "1")) as client:
            await client.list_tools()
            answers = [said(await client.call_tool(*call)) for call in calls]
            with pytest.raises(MCPError, match="no resource 'marple://truth'; there are marple://brief"):
                await client.read_resource("marple://truth")
        await table.leave()
        return answers

    await visit(Game(config, Seat("mcp"), bench=bench), None)
    assert list((tmp_path / "runs").iterdir()) == []

    plan = {"north_star": "a", "proxy": "b", "next_experiments": ["c"]}
    await visit(Game(config, Seat("mcp"), bench=bench), None, ("plan", plan))
    folder = the_run(tmp_path / "runs")
    assert folder.status == "interrupted"
    (status,) = await visit(Game.again(folder.path, Seat("mcp"), bench=bench), folder.path, ("status", {}))
    assert "plan         a; proxy: b" in status


@pytest.mark.asyncio(loop_scope="session")
async def test_while_it_is_paused_a_call_is_refused_with_the_way_out_and_one_under_way_says_that_it_waits(
    tiny: Path, bench: Bench, tmp_path: Path
) -> None:
    config = for_outside(RunConfig.of(target=str(tiny), investigator="mcp", runs=tmp_path / "runs"), None)
    plan = {"north_star": "a", "proxy": "b", "next_experiments": ["c"]}
    heard: list[str] = []
    first = asyncio.Event()

    async def hear(progress: float, total: float | None, message: str | None) -> None:
        heard.append(message or "")
        first.set()

    table = Table(Game(config, Seat("mcp"), bench=bench))
    table.begin()
    async with Client(build_server(table, "1")) as client:
        await client.list_tools()
        path = the_run(tmp_path / "runs").path
        request(path, "pause", by="a reviewer")
        refused = await client.call_tool("plan", plan)
        assert refused.is_error
        assert f"is paused (asked for by a reviewer); marple go {path} lets it go on" in said(refused)
        assert "Nothing was called" in said(refused)
        assert not (await client.call_tool("status", {})).is_error
        request(path, "go")
        assert not (await client.call_tool("plan", plan)).is_error

        many = {"prompts": [f"who is {number}" for number in range(300)], "max_new_tokens": 40}
        call = asyncio.ensure_future(client.call_tool("battery", many, progress_callback=hear))
        await first.wait()
        request(path, "pause", by="a reviewer")
        for _ in range(600):
            if any(f"marple go {path} lets it go on" in text for text in heard):
                break
            await asyncio.sleep(0.05)
        assert any("is paused (asked for by a reviewer)" in text for text in heard)
        request(path, "go")
        assert not (await call).is_error
    await table.leave()
    made = [
        event.payload["tool"]
        for event in RunFolder.open(path).events()
        if event.type in ("plan", "tool_call") and "tool" in event.payload
    ]
    assert made.count("battery") == 1


def test_what_cannot_be_served_is_told(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "marple.cli", "serve-mcp"]
    RunFolder.create(tmp_path / "runs", "r1", {"case": CASE, "investigator": "shell"}).close()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for more, words in (
            ([], "say what to play"),
            (["--resume", "r1"], "played by shell, not over MCP"),
            ([CASE, "--http", "--port", port], "choose another with --port"),
        ):
            done = subprocess.run([*command, *more], cwd=tmp_path, capture_output=True, text=True, check=False)
            assert done.returncode == 2, done.stderr
            assert words in done.stderr
            assert done.stdout == ""
    assert [path.name for path in (tmp_path / "runs").iterdir()] == ["r1"]
