"""A long run in short: the notebook as it stands and one line for each call, for a window that does not hold it all."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from marple.agent.boundary import result_in_short, view
from marple.agent.investigator import NOTEBOOK_TOOLS
from marple.agent.models import ModelTurn
from marple.traces import Event

__all__ = ["LINES_LEFT", "calls_in_short", "notebook_view"]

LINES_LEFT = 24
"""Lines that are left of the calls at the strongest level."""

_ARGUMENTS = 120
_SAID = 200


def notebook_view(events: Sequence[Event], field: str) -> str:
    """Plan, hypotheses with the course of their credences, predictions with what came of them, and notes."""
    said: dict[str, str] = {}
    settled = {event.parent: event.payload for event in events if event.type == "measurement"}
    for event in events:
        payload = event.payload
        if event.type == "plan":
            said["plan"] = (
                f"{payload['north_star']} Proxy: {payload['proxy']} Next: {'; '.join(payload['next_experiments'])}"
            )
        elif event.type == "hypothesis":
            said[payload["id"]] = _hypothesis(payload["id"], events)
        elif event.type == "prediction":
            came = settled.get(event.id)
            result = f"{came['share']:.2f}, surprise {came['surprise_bits']:.1f} bits" if came else "open"
            said[f"prediction {event.id}"] = (
                f"{payload['statement']} (probability {payload['probability']:.2f} that at least "
                f"{payload['at_least']:.2f} of the replies contain {payload['word']!r}): {result}"
            )
        elif event.type == "note":
            said[f"note {event.id}"] = payload["text"]
    return view(said or {"notebook": "empty"}, field)


def _hypothesis(name: str, events: Sequence[Event]) -> str:
    of_it = [e.payload for e in events if e.type == "hypothesis" and e.payload["id"] == name]
    cited = list(dict.fromkeys(call for payload in of_it for call in payload["evidence"]))
    course = " -> ".join(f"{payload['credence']:.2f}" for payload in of_it)
    rejected = ", rejected" if of_it[-1]["action"] == "reject" else ""
    rests = f", rests on {', '.join(cited)}" if cited else ""
    return f"{of_it[-1]['statement']} (credence {course}{rejected}{rests})"


def calls_in_short(events: Sequence[Event], field: str, *, most: int | None = None) -> list[str]:
    """One line for each experiment and for what the investigator said beside it; the last ``most`` of them.

    Calls of the notebook are left out: what they wrote down is in the notebook.
    """
    lines = []
    for event in events:
        if event.type == "model_call" and event.role == "investigator":
            turn = ModelTurn.from_dict(event.payload["turn"])
            if turn.text.strip():
                lines.append(view({"you said": _cut(" ".join(turn.text.split()), _SAID)}, field))
        elif event.type == "tool_call" and event.payload["tool"] not in NOTEBOOK_TOOLS:
            call = f"{event.payload['tool']} {_arguments(event.payload.get('arguments'))}"
            lines.append(result_in_short(event, field, call=call))
    left_out = 0 if most is None else max(0, len(lines) - most)
    first = [view({"harness": f"{left_out} earlier lines are left out"}, field)] if left_out else []
    return first + lines[left_out:]


def _arguments(arguments: Mapping[str, Any] | None) -> str:
    return _cut(json.dumps(arguments, ensure_ascii=False), _ARGUMENTS)


def _cut(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[:length]}... ({len(text):,} characters)"
