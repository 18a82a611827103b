"""A turn of the investigator, recorded whole."""

from __future__ import annotations

import time
from collections.abc import Awaitable

from marple.agent.compacting import compact_after_overflow, compact_if_due
from marple.agent.models import ModelTurn
from marple.agent.session import Session
from marple.errors import ModelError
from marple.tasks.outcome import outcome

__all__ = ["record_turn", "take_turn"]


async def take_turn(session: Session, number: int) -> str:
    """Let the investigator take turn ``number`` unless it is recorded; returns the ending it leads to, or ''."""
    recorded = session.model_call(number)
    if recorded is not None:
        return _ending(session, session.turn_of(recorded))
    compact_if_due(session)
    try:
        turn = await record_turn(session, number, "investigate", session.investigator.next_turn(session.situation()))
    except ModelError as error:
        session.folder.append("error", {"where": "model_call", "message": str(error), "status": error.status})
        return outcome("error")
    return _ending(session, turn)


async def record_turn(session: Session, number: int, purpose: str, answer: Awaitable[ModelTurn]) -> ModelTurn:
    """Wait for a turn and append it; a call that was begun before an interruption is marked as repeated."""
    begun = [e for e in session.events("call_start") if e.payload.get("model_turn") == [number, purpose]]
    start = session.folder.append("call_start", {"model_turn": [number, purpose], "attempt": len(begun) + 1})
    clock = time.monotonic()
    turn = await answer
    session.folder.append(
        "model_call",
        {
            "turn_number": number,
            "purpose": purpose,
            "input_until": start.id,
            "turn": turn.to_dict(),
            "attempt": len(begun) + 1,
        },
        role="investigator",
        parent=start.id,
        seconds=time.monotonic() - clock,
    )
    return turn


def _ending(session: Session, turn: ModelTurn) -> str:
    if turn.stop == "refusal":
        return outcome("refused_investigator")
    if turn.stop == "context_overflow" and not compact_after_overflow(session):
        return outcome("limit", "context")
    return ""
