"""What a run has used, and what is said of it."""

from __future__ import annotations

from typing import Any

from marple.agent.ledger import Used, exceeded_limit, remaining_text, used_by
from marple.agent.models import ModelTurn, Usage
from marple.tasks.budget import Budget
from marple.traces import Event


def event(number: int, ts: float, type: str, **payload: Any) -> Event:
    role = "investigator" if type == "model_call" else "harness"
    return Event(f"E{number}", ts, type, role, None, None, None, payload)


def turn(tokens: int, cost: float | None) -> dict[str, Any]:
    return ModelTurn(usage=Usage(input_tokens=tokens, output_tokens=1, cost_usd=cost)).to_dict()


EVENTS = [
    event(1, 100.0, "run_start"),
    event(2, 103.0, "model_call", purpose="investigate", turn=turn(9, 0.5)),
    event(3, 105.0, "tool_call", on_target=True, cost={"prompt_tokens": 30, "generated_tokens": 12, "seconds": 1.0}),
    event(4, 106.0, "tool_call", cost={}),
    event(5, 9000.0, "run_resume", after="E4"),
    event(6, 9002.0, "model_call", purpose="forecast-1", turn=turn(19, 0.25)),
]


def test_the_time_between_an_interruption_and_its_resume_does_not_count() -> None:
    assert used_by(EVENTS).seconds == 8.0
    assert used_by(EVENTS, now=9005.0).seconds == 11.0


def test_amounts() -> None:
    used = used_by(EVENTS)
    assert used == Used(turns=1, calls=1, tokens=30, target_tokens=42, cost=0.75, seconds=8.0)


def test_one_unknown_price_makes_the_cost_unknown_and_no_cost_limit_reached() -> None:
    events = [*EVENTS, event(7, 9003.0, "model_call", purpose="investigate", turn=turn(1, None))]
    assert used_by(events).cost is None
    assert exceeded_limit(Budget(cost=0.1), used_by(events)) is None
    assert exceeded_limit(Budget(cost=0.1), used_by(EVENTS)) == "cost"


def test_what_is_left() -> None:
    text = remaining_text(Budget(turns=3, calls=4, tokens=100, target_tokens=None, cost=1.0), used_by(EVENTS))
    assert text == "Budget left: 2 of 3 turns, 3 of 4 experiments, 70 of 100 of your tokens, $0.25 of $1.00."
