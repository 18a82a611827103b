"""Keeping the conversation within the investigator's window: when it is told in short, and how much of it.

The decision is an event, so that a run that is resumed sees the same conversation. Between two of them the beginning of
the conversation stays the same to the byte, which is what providers cache.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from marple.agent.history import Compaction, latest_compaction, messages_from_events, number_of
from marple.agent.models import AssistantMessage, Message, ModelTurn
from marple.agent.session import Session
from marple.traces import Event

__all__ = ["compact_after_overflow", "compact_if_due", "conversation_tokens", "window_of"]

LEVELS = {1: 4, 2: 3, 3: 1}
"""Level to the rounds, the latest, that it leaves as they are."""

FULL = 0.85
"""Share of the window, without room for a reply, at which something is done."""

GOAL = 0.5
"""Share that it is brought down to, of what the tools and the system prompt leave of that."""

ROOM = 8192
"""Tokens kept free for a reply, where the window has so many."""

_WORTH = 0.9
_CHARACTERS_PER_TOKEN = 3.5
_LEAST, _MOST = 1.0, 8.0


def compact_if_due(session: Session) -> None:
    """Tell the older part of the conversation in short where it is about to fill the window."""
    window = window_of(session)
    if window is None:
        return
    full = FULL * max(window - ROOM, window / 2)
    if conversation_tokens(session) > full:
        _record(session, full, "window")


def compact_after_overflow(session: Session) -> bool:
    """Take a step that makes the conversation shorter after a turn that did not fit; False where there is none."""
    events = session.folder.events()
    overflow = max(i for i, e in enumerate(events) if _overflowed(e))
    if any(event.type == "compaction" for event in events[overflow:]):
        return True  # it was taken already, before an interruption
    return _record(session, conversation_tokens(session), "overflow")


def window_of(session: Session) -> int | None:
    """Tokens of the window; below what has overflowed once. None for an investigator that has no window."""
    overflows = [e.payload["estimate"] for e in session.events("compaction") if e.payload["reason"] == "overflow"]
    return None if session.context_tokens is None else min([session.context_tokens, *overflows])


def conversation_tokens(session: Session, compaction: Compaction | None = None) -> int:
    """Tokens of the conversation with its tools, by the count of characters.

    How many characters make a token is read off the usage that the provider reported of the latest turn.

    Args:
        session: the run.
        compaction: what is told in short; None is what the events say.
    """
    messages = messages_from_events(session.folder.events(), session.budget, compaction=compaction)
    return round((_around(session) + _characters(messages)) / _characters_per_token(session))


def _record(session: Session, full: float, reason: str) -> bool:
    """Record the mildest level that leaves enough room, or the one that leaves most, if it gains anything."""
    before = conversation_tokens(session)
    around = _around(session) / _characters_per_token(session)
    goal = around + GOAL * max(0.0, full - around)
    chosen: tuple[Compaction, int] | None = None
    for level in LEVELS:
        compaction = _at(session, level)
        after = before if compaction is None else conversation_tokens(session, compaction)
        if compaction is not None and after < (_WORTH if reason == "window" else 1) * before:
            chosen = (compaction, after) if chosen is None or after < chosen[1] else chosen
        if after <= goal:
            break
    if chosen is None:
        return False
    said = {"upto": f"E{chosen[0].upto}", "level": chosen[0].level, "reason": reason}
    session.folder.append("compaction", {**said, "estimate": before, "window": window_of(session) or before})
    return True


def _at(session: Session, level: int) -> Compaction | None:
    """The compaction of this level now; None as long as there is nothing before the rounds that it leaves."""
    events = session.folder.events()
    turns = [number_of(event.id) for event in events if _is_turn(event) and not _overflowed(event)]
    made = number_of(events[-1].id) + 1
    if len(turns) > LEVELS[level]:
        return Compaction(turns[-LEVELS[level]] - 1, level, made)
    # The strongest level also cuts the results that it leaves.
    return Compaction(1, level, made) if level == max(LEVELS) else None


def _characters_per_token(session: Session) -> float:
    events = session.folder.events()
    for at in range(len(events) - 1, -1, -1):
        if _is_turn(events[at]) and not _overflowed(events[at]):
            usage = ModelTurn.from_dict(events[at].payload["turn"]).usage
            if not usage.reported or not usage.input_tokens:
                break
            shown = messages_from_events(events[:at], session.budget, compaction=latest_compaction(events[:at]))
            found = (_around(session) + _characters(shown)) / usage.input_tokens
            return min(max(found, _LEAST), _MOST)
    return _CHARACTERS_PER_TOKEN


def _around(session: Session) -> int:
    """Characters of what goes along with every turn: the system prompt and the tools."""
    tools = [*session.worker_tools(), *session.notebook.schemas()]
    system = getattr(session.investigator, "system", "")
    return len(system) + sum(len(t.name) + len(t.description) + len(json.dumps(t.parameters)) for t in tools)


def _characters(messages: Sequence[Message]) -> int:
    return sum(
        len(json.dumps(_said(message.turn))) if isinstance(message, AssistantMessage) else len(message.text)
        for message in messages
    )


def _said(turn: ModelTurn) -> object:
    return turn.native["content"] if turn.native else [turn.text, [[call.name, call.raw] for call in turn.tool_calls]]


def _is_turn(event: Event) -> bool:
    return event.type == "model_call" and event.role == "investigator"


def _overflowed(event: Event) -> bool:
    return _is_turn(event) and event.payload["turn"]["stop"] == "context_overflow"
