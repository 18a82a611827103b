"""The conversation an investigator sees, rebuilt from the events of its run; it is kept nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from marple.agent.boundary import announcement, result_in_short, result_view, untrusted_field, view
from marple.agent.digest import LINES_LEFT, calls_in_short, notebook_view
from marple.agent.ledger import Used, remaining_text
from marple.agent.models import AssistantMessage, Message, ModelTurn, ToolMessage, UserMessage
from marple.agent.prompt_files import load_prompt
from marple.tasks.budget import Budget
from marple.tools.visible import quote
from marple.traces import Event

__all__ = ["HARNESS_NOTES", "Compaction", "latest_compaction", "messages_from_events", "number_of"]

HARNESS_NOTES = ("check_in", "limit", "measurement", "forecast", "ensemble")
"""Event types whose ``text`` the harness says to the investigator."""


@dataclass(frozen=True)
class Compaction:
    """From where on, and how much, older results are told in short."""

    upto: int
    """Number of the last event that is."""
    level: int
    """1: a line for each result; 2: a line for each call in the place of the conversation; 3: the latest lines only,
    and the results that are left are cut."""
    made: int
    """Number of the event that recorded it."""


def messages_from_events(
    events: Sequence[Event], budget: Budget, *, compaction: Compaction | None = None
) -> list[Message]:
    """Rebuild the messages; the same for the same events.

    Args:
        events: all events of the run so far.
        budget: the run's budget; what is left of it follows every round of results.
        compaction: what is told in short; None is what the events say themselves.
    """
    conversation = _Conversation(events, budget, compaction or latest_compaction(events))
    for event in events:
        conversation.add(event)
    return conversation.ended()


def latest_compaction(events: Sequence[Event]) -> Compaction | None:
    """The compaction that holds after these events."""
    for event in reversed(events):
        if event.type == "compaction":
            return Compaction(number_of(event.payload["upto"]), event.payload["level"], number_of(event.id))
    return None


def number_of(event_id: str) -> int:
    """The line of an event, counted from 1."""
    return int(event_id[1:])


class _Conversation:
    """Takes in one event after the other."""

    def __init__(self, events: Sequence[Event], budget: Budget, compaction: Compaction | None) -> None:
        self._budget = budget
        self._compaction = compaction
        self._short = [] if compaction is None else [e for e in events if number_of(e.id) <= compaction.upto]
        self._before = [] if compaction is None else [e for e in events if number_of(e.id) < compaction.made]
        self._messages: list[Message] = []
        self._notes: list[str] = []
        self._results: dict[int, ToolMessage] = {}
        self._used = Used()
        self._turn = ModelTurn()
        self._field = "untrusted"

    def add(self, event: Event) -> None:
        """One more event; those that are told as one line of the first message are only counted."""
        before, self._used = self._used, self._used.plus(event)
        if event.type == "run_start":
            self._begin(event)
        elif self._folded(event):
            self._notes += [event.payload["text"]] if event.type in ("limit", "ensemble") else []
        elif event.type == "model_call" and event.role == "investigator":
            self._speak(ModelTurn.from_dict(event.payload["turn"]), before)
        elif handler := _HANDLERS.get(event.type):
            handler(self, event)
        elif event.type in HARNESS_NOTES and event.payload.get("text"):
            self._notes.append(event.payload["text"])

    def ended(self) -> list[Message]:
        """The messages, the last one with what is left of the budget."""
        self._flush()
        return [*self._messages, UserMessage("\n\n".join((*self._notes, remaining_text(self._budget, self._used))))]

    def _begin(self, event: Event) -> None:
        self._field = untrusted_field(event)
        self._notes += [event.payload["brief"], announcement(self._field)]
        if self._compaction is not None:
            self._notes += [load_prompt("compaction").text, notebook_view(self._before, self._field)]
            if self._compaction.level > 1:
                most = LINES_LEFT if self._compaction.level > 2 else None
                self._notes.append("\n".join(calls_in_short(self._short, self._field, most=most)))

    def _folded(self, event: Event) -> bool:
        said = self._compaction
        return said is not None and said.level > 1 and number_of(event.id) <= said.upto

    def _speak(self, turn: ModelTurn, before: Used) -> None:
        # A turn that did not fit was none: what led to it is said again, in short.
        if turn.stop == "context_overflow":
            return
        self._flush()
        self._messages.append(UserMessage("\n\n".join((*self._notes, remaining_text(self._budget, before)))))
        self._messages.append(AssistantMessage(turn))
        self._turn, self._notes = turn, []

    def _flush(self) -> None:
        """The results of a turn as its calls stood; those that ran side by side ended in any order."""
        self._messages += [self._results[index] for index in sorted(self._results)]
        self._results = {}

    def _tool_call(self, event: Event) -> None:
        payload, said = event.payload, self._compaction
        if said is not None and number_of(event.id) <= said.upto:
            text = result_in_short(event, self._field)
        else:
            cut = said is not None and said.level > 2 and number_of(event.id) < said.made
            text = result_view(event, self._field, shortened=cut)
        message = ToolMessage(payload["call_id"], payload["tool"], text, is_error=payload["status"] != "ok")
        self._results[payload["index"]] = message

    def _error(self, event: Event) -> None:
        if event.payload.get("where") != "forecast":
            return
        calls = event.payload.get("call_ids", ())
        self._flush()
        said = view({"harness": event.payload["message"]}, self._field)
        self._messages += [ToolMessage(i, "forecast", said, is_error=True) for i in calls]
        if not calls:
            self._notes.append(said)

    def _forecast(self, event: Event) -> None:
        if event.payload.get("items"):
            _ask(event, self._field, self._results, self._notes)
        elif "probabilities" in event.payload:
            calls = self._turn.tool_calls
            self._results = dict(enumerate(ToolMessage(call.id, call.name, "Recorded.") for call in calls))


_HANDLERS: Mapping[str, Callable[[_Conversation, Event], None]] = {
    "tool_call": _Conversation._tool_call,
    "error": _Conversation._error,
    "forecast": _Conversation._forecast,
}


def _ask(event: Event, field: str, results: dict[int, ToolMessage], notes: list[str]) -> None:
    """Put the questions, which quote the target, into the result of the call before them, else into a note."""
    items = [", ".join(f"{quote(k)}: {quote(v)}" for k, v in item.items()) for item in event.payload["items"]]
    text = view({"harness": event.payload["text"]}, field, [f"{{{item}}}" for item in items])
    before = [at for at, message in results.items() if message.name in ("submit", "forecast") and not message.is_error]
    if before:
        results[max(before)] = replace(results[max(before)], text=text)
    else:
        notes.append(text)
