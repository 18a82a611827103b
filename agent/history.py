"""The conversation an investigator sees, rebuilt from the events of its run; it is kept nowhere else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from marple.agent.boundary import announcement, result_view, untrusted_field, view
from marple.agent.ledger import Used, remaining_text
from marple.agent.models import AssistantMessage, Message, ModelTurn, ToolMessage, UserMessage
from marple.tasks.budget import Budget
from marple.tools.visible import quote
from marple.traces import Event

__all__ = ["HARNESS_NOTES", "messages_from_events"]

HARNESS_NOTES = ("check_in", "limit", "measurement", "forecast")
"""Event types whose ``text`` the harness says to the investigator."""


def messages_from_events(events: Sequence[Event], budget: Budget, *, shortened: bool = False) -> list[Message]:
    """Rebuild the messages.

    Args:
        events: all events of the run so far.
        budget: the run's budget; what is left of it follows every round of results.
        shortened: cut every tool result to its first characters, for a window that has overflowed.
    """
    messages: list[Message] = []
    notes: list[str] = []
    results: dict[int, ToolMessage] = {}
    used = Used()
    field = "untrusted"
    turn = ModelTurn()
    for event in events:
        before, used = used, used.plus(event)
        if event.type == "run_start":
            field = untrusted_field(event)
            notes += [event.payload["brief"], announcement(field)]
        elif event.type == "model_call" and event.role == "investigator":
            messages += _in_order(results)
            messages.append(UserMessage("\n\n".join((*notes, remaining_text(budget, before)))))
            turn = ModelTurn.from_dict(event.payload["turn"])
            messages.append(AssistantMessage(turn))
            notes, results = [], {}
        elif event.type == "tool_call":
            text = result_view(event, field, shortened=shortened)
            results[event.payload["index"]] = _tool_message(event, text)
        elif event.type == "error" and event.payload.get("where") == "forecast":
            calls = event.payload.get("call_ids", ())
            messages += _in_order(results)
            results = {}
            said = view({"harness": event.payload["message"]}, field)
            messages += [ToolMessage(i, "forecast", said, is_error=True) for i in calls]
            if not calls:
                notes.append(said)
        elif event.type == "forecast" and event.payload.get("items"):
            _ask(event, field, results, notes)
        elif event.type == "forecast" and "probabilities" in event.payload:
            results = dict(enumerate(ToolMessage(call.id, call.name, "Recorded.") for call in turn.tool_calls))
        elif event.type in HARNESS_NOTES and event.payload.get("text"):
            notes.append(event.payload["text"])
    messages += _in_order(results)
    messages.append(UserMessage("\n\n".join((*notes, remaining_text(budget, used)))))
    return messages


def _in_order(results: Mapping[int, ToolMessage]) -> list[ToolMessage]:
    """The results of a turn as its calls stood; those that ran side by side ended in any order."""
    return [results[index] for index in sorted(results)]


def _tool_message(event: Event, text: str) -> ToolMessage:
    return ToolMessage(event.payload["call_id"], event.payload["tool"], text, is_error=event.payload["status"] != "ok")


def _ask(event: Event, field: str, results: dict[int, ToolMessage], notes: list[str]) -> None:
    """Put the questions, which quote the target, into the result of the call before them, else into a note."""
    items = [", ".join(f"{quote(k)}: {quote(v)}" for k, v in item.items()) for item in event.payload["items"]]
    text = view({"harness": event.payload["text"]}, field, [f"{{{item}}}" for item in items])
    before = [at for at, message in results.items() if message.name in ("submit", "forecast") and not message.is_error]
    if before:
        results[max(before)] = replace(results[max(before)], text=text)
    else:
        notes.append(text)
