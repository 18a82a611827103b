"""What a run writes grows with its turns and not faster."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from marple.agent.models import AssistantMessage, Message, ModelTurn
from marple.traces import RunFolder
from tests.agent.conftest import Play
from tests.agent.turns import chat, say, submit

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXT = "what I think of it, at some length. " * 20


def script(last: int) -> object:
    def play(messages: Sequence[Message]) -> ModelTurn:
        turn = sum(isinstance(message, AssistantMessage) for message in messages)
        return say(TEXT, chat(f"c{turn}")) if turn < last else say("", submit())

    return play


def bytes_until(folder: RunFolder, turn: int) -> int:
    size = 0
    lines = (folder.path / "events.jsonl").read_bytes().splitlines(keepends=True)
    for event, line in zip(folder.events(), lines, strict=True):
        size += len(line)
        if event.type == "model_call" and event.payload["turn_number"] == turn:
            return size
    raise AssertionError(f"no turn {turn}")


async def test_five_hundred_turns_grow_linearly(play: Play) -> None:
    _, folder, _ = await play(script(500), budget="turns=501,calls=501,tokens=none,seconds=none")
    at = {turn: bytes_until(folder, turn) for turn in (100, 300, 500)}
    assert (at[500] - at[300]) / (at[300] - at[100]) == pytest.approx(1, abs=0.05)
    assert sum(path.stat().st_size for path in folder.path.glob("checkpoint.sqlite*")) < 200_000
