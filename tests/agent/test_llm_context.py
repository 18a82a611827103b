"""A long run in a window that does not hold it: what is told in short, when, and that nothing is lost."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from marple.agent.history import Compaction, messages_from_events, number_of
from marple.agent.models import (
    AssistantMessage,
    Message,
    ModelTurn,
    ScriptedModel,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)
from marple.agent.models.windows import UNKNOWN_WINDOW, context_window
from marple.agent.pivoting import weak_signals
from marple.traces import Event, RunFolder
from tests.agent.conftest import Play
from tests.agent.test_history import event
from tests.agent.turns import CHAT, call, say, submit

pytestmark = pytest.mark.asyncio(loop_scope="session")

WINDOW = 40_000
CHARACTERS = 3
"""Of one token, as the scripted model reports its usage."""


def turns(folder: RunFolder) -> list[int]:
    return [number_of(e.id) for e in folder.events() if e.type == "model_call" and e.role == "investigator"]


RUNS: dict[int, tuple[RunFolder, ScriptedModel]] = {}


async def long_run(play: Play, window: int) -> tuple[RunFolder, ScriptedModel]:
    """Fifteen rounds of experiments in a window of so many tokens, played once for all tests."""
    if window not in RUNS:
        rounds = itertools.count(1)

        def script(messages: Sequence[Message]) -> ModelTurn:
            size = Usage(input_tokens=characters(messages) // CHARACTERS, output_tokens=50)
            return replace(said_in(next(rounds)), usage=size)

        outcome, folder, model = await play(script, only="1", context_tokens=window, budget="tokens=none")
        assert outcome.status == "submitted"
        RUNS[window] = folder, model
    return RUNS[window]


def said_in(number: int) -> ModelTurn:
    guess = {"statement": "kettles", "probability": 0.7, "word": "kettle", "at_least": 0.5}
    added = {"action": "add", "statement": "it talks kettles down", "credence": 0.3}
    updated = {"action": "update", "id": "H1", "credence": 0.6}
    rounds = {
        1: [call("predict", "p", **guess), call("hypothesis", "h", **added), call("note", "n", text="the lamp is odd")],
        3: [ToolCall.of("hypothesis", updated, id="h2")],
        16: [ToolCall.of("read_result", {"id": "E15"}, id="r")],
        17: [submit()],
    }
    return say(f"thought {number}", *rounds.get(number, []), *(long_chats(number) if number < 16 else []))


def long_chats(number: int) -> list[ToolCall]:
    each = {"messages": CHAT["messages"], "samples": 16, "max_new_tokens": 40}
    return [call("chat", f"c{number}.{i}", **each) for i in range(2)]


def characters(messages: Sequence[Message]) -> int:
    return sum(len(str(message)) for message in messages) + 30_000


async def test_a_long_run_stays_within_its_window_and_loses_nothing(play: Play) -> None:
    folder, model = await long_run(play, WINDOW)
    made = [e.payload for e in folder.events() if e.type == "compaction"]
    assert made
    assert {payload["reason"] for payload in made} == {"window"}
    assert all(payload["window"] == WINDOW for payload in made)
    for told in model.calls:
        assert characters(told.messages) / CHARACTERS < WINDOW
    # The notebook is read again in front, with the course of a credence and what came of a prediction.
    first = model.calls[-1].messages[0]
    assert isinstance(first, UserMessage)
    assert "it talks kettles down (credence 0.30 -> 0.60)" in first.text
    assert "the lamp is odd" in first.text
    assert "0.00, surprise 1.7 bits" in first.text
    # The first experiment is told in a line, and read whole where it is asked for.
    last = [message for message in model.calls[-1].messages if isinstance(message, ToolMessage)]
    experiments = [e for e in folder.events() if e.type == "tool_call" and e.payload.get("on_target")]
    assert '"call": "chat {' in first.text
    assert experiments[0].id == "E15"
    assert experiments[0].payload["text"][:400].splitlines()[0] in str(last[-1].text).replace('\\"', '"')


async def test_without_a_window_everything_is_said_every_time(play: Play) -> None:
    folder, model = await long_run(play, 10**6)
    assert not [e for e in folder.events() if e.type == "compaction"]
    assert characters(model.calls[-1].messages) / CHARACTERS > WINDOW


async def test_the_beginning_stays_the_same_between_two_compactions(play: Play) -> None:
    folder, model = await long_run(play, WINDOW)
    changes = [number_of(e.id) for e in folder.events() if e.type == "compaction"]
    at, kept = turns(folder), 0
    for before, after, told, again in zip(at, at[1:], model.calls, model.calls[1:], strict=False):
        if not any(before < change < after for change in changes):
            assert again.messages[: len(told.messages)] == told.messages
            kept += 1
    assert kept > len(changes) > 1


async def test_the_events_alone_give_what_was_said(play: Play) -> None:
    folder, model = await long_run(play, WINDOW)
    events = folder.events()
    budget = play_budget(folder)
    for at, told in zip(turns(folder), model.calls, strict=False):
        begun = [e for e in events[: at - 1] if e.type != "call_start" or "model_turn" not in e.payload]
        assert messages_from_events(begun, budget) == list(told.messages)


def play_budget(folder: RunFolder) -> Any:
    from marple.tasks.budget import Budget

    return Budget(**folder.spec["budget"])


@pytest.mark.parametrize("level", [1, 2, 3])
async def test_every_call_is_answered_at_every_level_and_the_stronger_is_shorter(play: Play, level: int) -> None:
    folder, _ = await long_run(play, 10**6)
    events = folder.events()
    whole = characters(messages_from_events(events, play_budget(folder)))
    at = turns(folder)
    for kept in (1, 4, 10):
        compaction = Compaction(at[-kept] - 1, level, number_of(events[-1].id))
        messages = messages_from_events(events, play_budget(folder), compaction=compaction)
        assert characters(messages) < whole
        if level > 1:
            weaker = replace(compaction, level=level - 1)
            shown = messages_from_events(events, play_budget(folder), compaction=weaker)
            assert characters(messages) <= characters(shown)
        assert isinstance(messages[0], UserMessage)
        open_calls: set[str] = set()
        for message in messages:
            if isinstance(message, AssistantMessage):
                assert not open_calls
                open_calls = {one.id for one in message.turn.tool_calls}
            elif isinstance(message, ToolMessage):
                open_calls.remove(message.call_id)
        assert not open_calls


async def test_a_window_that_proves_smaller_is_kept_to(play: Play) -> None:
    """The server takes less than the model's name says: it overflows once, and later runs ahead of it."""
    count = overflows = 0

    def script(messages: Sequence[Message]) -> ModelTurn:
        nonlocal count, overflows
        size = characters(messages)
        if size > 20_000 * CHARACTERS:
            overflows += 1
            return ModelTurn(stop="context_overflow")
        count += 1
        usage = Usage(input_tokens=size // CHARACTERS, output_tokens=50)
        return say(f"t{count}", *(long_chats(count) if count < 14 else [submit()]), usage=usage)

    outcome, folder, _ = await play(script, only="1", context_tokens=100_000)
    assert outcome.status == "submitted"
    assert overflows == 1
    assert [e.payload["reason"] for e in folder.events() if e.type == "compaction"].count("window") >= 1


@pytest.mark.parametrize(
    ("model", "tokens"),
    [
        ("anthropic/claude-opus-4-7", 200_000),
        ("openai/gpt-5.6", 272_000),
        ("openai-chat/meta-llama/Llama-3.3-70B-Instruct", 131_072),
        ("openai-chat/somebody/unheard-of", UNKNOWN_WINDOW),
    ],
)
async def test_the_window_of_a_family_is_known(model: str, tokens: int) -> None:
    assert context_window(model) == tokens


def believed(number: int, credence: float, *evidence: str, action: str = "update") -> Event:
    payload = {"id": "H1", "statement": "s", "credence": credence, "action": action, "evidence": list(evidence)}
    return event(number, "hypothesis", "investigator", **payload, place=[1, number])


def ran(number: int) -> Event:
    return event(number, "tool_call", "target", on_target=True, status="ok", tool="chat", text="")


@pytest.mark.parametrize(
    ("events", "said"),
    [
        ([believed(1, 0.3, action="add"), ran(2), ran(3), believed(4, 0.35)], []),
        ([believed(1, 0.3, action="add"), ran(2), ran(3), ran(4), believed(5, 0.35)], [("E2", "E3", "E4")]),
        ([believed(1, 0.3, action="add"), ran(2), ran(3), ran(4), believed(5, 0.6)], []),
        ([believed(1, 0.9, action="add"), ran(2), ran(3), ran(4)], []),
        ([ran(1), ran(2), ran(3), believed(4, 0.5, "E1", "E2", "E3", action="add")], [("E1", "E2", "E3")]),
    ],
)
async def test_three_experiments_that_move_nothing_are_called_a_weak_signal(
    events: list[Event], said: list[tuple[str, ...]]
) -> None:
    spoke = event(8, "model_call", "investigator", purpose="investigate")
    assert [signal.experiments for signal in weak_signals([*events, spoke])] == said
    if said:
        told = event(9, "check_in", hypothesis="H1", experiments=list(said[0]))
        assert weak_signals([*events, spoke, told]) == []


async def test_a_result_that_the_investigator_has_not_had_a_turn_with_is_no_weak_signal() -> None:
    spoke = event(3, "model_call", "investigator", purpose="investigate")
    events = [believed(1, 0.3, action="add"), ran(2), spoke, ran(4), ran(5)]
    assert weak_signals(events) == []


async def test_the_harness_says_that_a_signal_is_weak(play: Play) -> None:
    added = call("hypothesis", "h", action="add", statement="kettles", credence=0.4)
    rounds = [say("", added), *(say("", call("chat", f"c{i}", **CHAT)) for i in range(4)), say("", submit())]
    _, folder, model = await play(rounds)
    told = [e.payload for e in folder.events() if e.type == "check_in" and e.payload["kind"] == "weak_signal"]
    assert [payload["hypothesis"] for payload in told] == ["H1"]
    assert len(told[0]["experiments"]) == 3
    assert "a weak signal" not in str(model.calls[4].messages[-1])
    assert "a weak signal" in str(model.calls[5].messages[-1])
