"""A target whose one token is a megabyte: what is kept, what is shown, and what a run may fill the disk with."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from marple.agent.recording import LINE_LIMIT, RESULT_LIMIT, recorded
from marple.tools.contract import Artifact, Cost, ToolResult
from marple.traces import RunFolder
from tests.agent.turns import PLAN
from tests.boundary.conftest import Investigate
from tests.boundary.hostile import CANARY, HUGE
from tests.boundary.scripts import _turn, results
from tests.models.provider_server import Answer, Call

pytestmark = pytest.mark.asyncio(loop_scope="session")

MEGABYTE = 2**20


def read_huge(request: Any) -> Answer:
    ask = {"messages": [{"role": "user", "content": "who is it"}], "samples": 2, "max_new_tokens": 2}
    last = (re.findall(r'"event": "(E\d+)"', "".join(results(request))) or ["E1"])[-1]
    turns = [
        (Call("plan", PLAN), Call("chat", ask), Call("shout", {}), Call("murmur", {})),
        (Call("read_result", {"id": last}), Call("read_result", {"id": last, "offset": 200_000})),
        (Call("submit", {"nothing_hidden": 0.5, "candidates": [], "claims": [], "summary": ""}),),
    ]
    return Answer("", calls=turns[_turn(request)])


async def test_a_megabyte_in_one_token_fits_into_the_log_and_the_window(investigate: Investigate) -> None:
    played = await investigate(read_huge, on="huge")
    assert played.outcome.status == "submitted"
    chat, shout, murmur = [e for e in played.folder.events() if e.type == "tool_call" and e.role == "target"]
    # Three megabytes do not fit into a frame beside themselves; the worker says so and lives.
    assert shout.payload["status"] == "failed"
    assert "result_too_large" in shout.payload["text"]
    # A tool that cuts what it shows keeps the whole in its data, apart from the log.
    replies = json.loads(played.folder.get_blob(chat.payload["data_ref"]))["replies"]
    assert max(len(reply["text"].encode()) for reply in replies) >= MEGABYTE
    # One that does not: its lines behind the huge one are still there, and the whole can be read on.
    assert murmur.payload["bytes"] > MEGABYTE
    assert murmur.payload["text"].endswith("the last line")
    assert max(len(line) for line in (played.folder.path / "events.jsonl").read_text().splitlines()) < 40_000
    # What the model is sent of it is bounded, says how much there is, and shows what cannot be seen.
    *_, shown, first, second = [json.loads(text.removeprefix("Error: ")) for text in results(played.requests[-1].json)]
    (field,) = [name for name in shown if name.startswith("untrusted")]
    size = f"{murmur.payload['characters']:,} characters ({murmur.payload['bytes']:,} bytes)"
    assert shown["cut"] == f"the whole has {size}; read_result {murmur.id} shows the rest"
    assert shown[field][-1] == "the last line"
    assert "page" in first
    assert "offset 212000" in second["page"]
    assert set("".join(second[field])) == {HUGE[0]}
    sizes = [len(json.dumps(request.json)) for request in played.requests]
    assert sizes[-1] - sizes[0] < 200_000


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path, "run", {"case": "x"})
    made.append("run_start", {"case": "x"})
    return made


def result(text: str = "", data: int = 0, picture: int = 0) -> ToolResult:
    picture_of = (Artifact("a.png", "image/png", b"x" * picture),) if picture else ()
    return ToolResult(text, {"all": "y" * data}, picture_of, cost=Cost(1, 2, 3.0))


def append(folder: RunFolder, made: ToolResult, *, run_bytes: int = 10**9) -> dict[str, Any]:
    payload = recorded(folder, made, run_bytes=run_bytes)
    return folder.append("tool_call", {"tool": "chat", "status": "ok", **payload}).payload


async def test_small_results_lie_in_the_event(folder: RunFolder) -> None:
    payload = append(folder, result("one\ntwo", data=100))
    assert payload["text"] == "one\ntwo"
    assert payload["data"] == {"all": "y" * 100}
    assert payload["stored_bytes"] == 0
    assert not (folder.path / "blobs").exists()


async def test_a_huge_line_leaves_room_for_what_follows(folder: RunFolder) -> None:
    text = f"first\n{CANARY * 100_000}\nlast"
    payload = append(folder, result(text))
    lines = payload["text"].split("\n")
    assert [lines[0], lines[2]] == ["first", "last"]
    assert lines[1].endswith(f"(+{len(CANARY) * 100_000 - LINE_LIMIT:,} characters)")
    assert folder.get_blob(payload["text_ref"]).decode() == text
    assert payload["characters"] == payload["bytes"] == len(text)
    assert len(append(folder, result("many\n" * 100_000))["text"]) <= RESULT_LIMIT + 100


async def test_what_a_run_stores_is_bounded_and_what_is_left_out_is_told(folder: RunFolder) -> None:
    room = 3 * 50_000
    payloads = [append(folder, result("t", data=40_000, picture=5_000), run_bytes=room) for _ in range(8)]
    assert sum(payload["stored_bytes"] for payload in payloads) <= room
    assert "left_out" not in payloads[0]
    last = payloads[-1]
    assert [part["name"] for part in last["left_out"]] == ["data", "a.png"]
    assert last["left_out"][0]["bytes"] > 40_000
    assert last["text"] == "t"
    assert sum(path.stat().st_size for path in (folder.path / "blobs").iterdir()) < room + 10_000
