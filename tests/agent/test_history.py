"""The conversation rebuilt from events: every call has its result, also where two rounds of forecasts are asked."""

from __future__ import annotations

from typing import Any

from marple.agent.history import messages_from_events
from marple.agent.models import AssistantMessage, ToolMessage
from marple.tasks.budget import Budget
from marple.traces import Event
from tests.agent.turns import call, say, submit


def event(number: int, type: str, role: str = "harness", **payload: Any) -> Event:
    return Event(f"E{number}", float(number), type, role, None, None, None, payload)


def spoken(number: int, purpose: str, *calls: Any) -> Event:
    turn = say("", *calls).to_dict()
    return event(number, "model_call", "investigator", purpose=purpose, turn_number=1, turn=turn)


FROZEN: dict[str, Any] = {
    "call_id": "submit1",
    "tool": "submit",
    "index": 0,
    "status": "ok",
    "text": "The answer is frozen.",
}
EVENTS = [
    event(1, "run_start", brief="find out", nonce="ab12"),
    spoken(2, "investigate", submit()),
    event(3, "tool_call", turn_number=1, arguments={}, **FROZEN),
    event(4, "forecast", round="replies", text="whose?", items=[{"id": "F1", "prompt": "a lamp"}], asked=["F1"]),
    spoken(5, "forecast-1", call("forecast", "f1", probabilities=[0.5])),
    event(6, "forecast", "investigator", round="replies", probabilities=[0.5]),
    event(7, "forecast", round="fires", text="does it fire?", items=[{"id": "P1", "prompt": "a cup"}], asked=["P1"]),
    spoken(8, "forecast-fires-1", call("forecast", "f2", probabilities=[0.5])),
    event(9, "forecast", "investigator", round="fires", probabilities=[0.5]),
]


def test_each_round_of_forecasts_is_the_result_of_the_call_before_it() -> None:
    messages = messages_from_events(EVENTS, Budget())
    results = {one.call_id: one.text for one in messages if isinstance(one, ToolMessage)}
    assert list(results) == ["submit1", "f1", "f2"]
    assert "whose?" in results["submit1"]
    assert "lamp" in results["submit1"]
    assert "does it fire?" in results["f1"]
    assert "cup" in results["f1"]
    assert "lamp" not in results["f1"]
    assert results["f2"] == "Recorded."


def test_every_call_of_a_turn_is_answered_before_the_next_turn() -> None:
    open_calls: set[str] = set()
    for message in messages_from_events(EVENTS, Budget()):
        if isinstance(message, AssistantMessage):
            assert not open_calls
            open_calls = {one.id for one in message.turn.tool_calls}
        elif isinstance(message, ToolMessage):
            open_calls.discard(message.call_id)
    assert not open_calls


def test_a_round_after_one_that_was_never_answered_in_its_form_is_asked_all_the_same() -> None:
    refused = event(6, "error", where="forecast", message="no call of forecast", call_ids=[])
    messages = messages_from_events([*EVENTS[:4], spoken(5, "forecast-1"), refused, *EVENTS[6:7]], Budget())
    assert "does it fire?" in str(messages[-1])
    assert "cup" in str(messages[-1])
