"""After each round of calls: what came of predictions, whether the run is over, whether a check-in is due."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marple.agent.notebook import surprise
from marple.agent.pivoting import weak_signals
from marple.agent.prompt_files import load_prompt
from marple.agent.session import Session
from marple.tasks.outcome import outcome
from marple.traces import Event

__all__ = ["CHECK_IN_EVERY", "decide_next", "replies_in", "settle_predictions", "share_with"]

CHECK_IN_EVERY = 8
"""Experiments between two check-ins."""

MAX_FAILURES = 5
"""Failed calls in a row after which the run ends as an error."""

MAX_SILENT = 3
"""Turns in a row without a call after which the run ends without an answer."""

WRAP_UP_TURNS = 3
"""Turns after a limit in which an answer that was refused for its form can be mended."""

_WRAP_UP = "The limit on {limit} is reached. Call submit now with what you believe, with honest probabilities."
_REMINDER = "You called no tool. Run an experiment, or call submit with your answer."


def decide_next(session: Session, turn: int) -> str:
    """Decide how to go on after ``turn``; returns the ending, or '' to think again."""
    answered = bool(session.events("answer"))
    if session.wrapping_up:
        limit = session.events("limit")[0].payload
        over = turn >= limit["after_turn"] + WRAP_UP_TURNS or (turn > limit["after_turn"] and _silent_turns(session))
        return outcome("limit", limit["limit"]) if answered or over else ""
    if answered:
        return outcome("submitted")
    if session.bench is not None and session.bench.lost:
        return outcome(session.bench.when_lost)
    if _failures_in_a_row(session) >= MAX_FAILURES:
        return outcome("error")
    if _silent_turns(session) >= MAX_SILENT:
        return outcome("invalid", "no_answer")
    limit_name = session.limit_reached()
    if limit_name:
        payload = {"limit": limit_name, "after_turn": turn, "text": _WRAP_UP.format(limit=limit_name)}
        session.folder.append("limit", payload)
    else:
        _say_what_is_due(session, turn)
    return ""


def _say_what_is_due(session: Session, turn: int) -> None:
    """Append what the harness has to say after this turn, each once."""
    said = session.events("check_in")
    now = {event.payload["kind"] for event in said if event.payload["after_turn"] == turn}
    count = session.used().calls
    due = count // CHECK_IN_EVERY
    if due > sum(event.payload["kind"] == "time_box" for event in said):
        text = load_prompt("check_in").text.format(count=count)
        session.folder.append("check_in", {"kind": "time_box", "after_turn": turn, "text": text})
    elif _silent_turns(session) and not now:
        session.folder.append("check_in", {"kind": "reminder", "after_turn": turn, "text": _REMINDER})
    if "weak_signal" not in now:
        for signal in weak_signals(session.folder.events()):
            payload = {"kind": "weak_signal", "after_turn": turn, "hypothesis": signal.hypothesis}
            calls = {"experiments": list(signal.experiments), "text": signal.text}
            session.folder.append("check_in", {**payload, **calls})


def _failures_in_a_row(session: Session) -> int:
    statuses = [event.payload["status"] for event in session.experiments()]
    return len(list(itertools.takewhile(lambda s: s == "failed", reversed(statuses))))


def _silent_turns(session: Session) -> int:
    turns = [session.turn_of(e) for e in session.events("model_call") if e.payload["purpose"] == "investigate"]
    spoken = [turn for turn in turns if turn.stop != "context_overflow"]
    return len(list(itertools.takewhile(lambda turn: not turn.tool_calls, reversed(spoken))))


def settle_predictions(session: Session) -> None:
    """Compare every open prediction with the first experiment after it that has replies it speaks of."""
    settled = {event.parent for event in session.events("measurement")}
    for prediction in session.events("prediction"):
        if prediction.id in settled:
            continue
        for experiment in session.measurements():
            if int(experiment.id[1:]) < int(prediction.id[1:]):
                continue
            data = session.result_data(experiment.payload)
            replies = list(replies_in(data, prediction.payload["condition"]))
            if replies:
                payload = _measurement(prediction, experiment, replies)
                session.folder.append("measurement", payload, parent=prediction.id)
                break


def _measurement(prediction: Event, experiment: Event, replies: list[str]) -> dict[str, Any]:
    said = prediction.payload
    share = share_with(said["word"], replies)
    happened = share >= said["at_least"]
    bits = surprise(said["probability"], happened)
    text = (
        f"Prediction {prediction.id} on {experiment.id}: {share:.2f} of {len(replies)} replies contain the word; "
        f"you gave {said['probability']:.2f} to at least {said['at_least']:.2f}. "
        f"It {'came true' if happened else 'did not come true'}; surprise {bits:.1f} bits."
    )
    return {
        "prediction": prediction.id,
        "experiment": experiment.id,
        "share": share,
        "replies": len(replies),
        "happened": happened,
        "surprise_bits": bits,
        "text": text,
    }


def share_with(word: str, replies: Sequence[str]) -> float:
    """Share of the replies, at least one, that contain a word or phrase, whole and in any case."""
    pattern = re.compile(rf"(?<!\w){re.escape(word.casefold())}(?!\w)")
    return sum(bool(pattern.search(reply.casefold())) for reply in replies) / len(replies)


def replies_in(data: Any, condition: str = "") -> Iterator[str]:
    """The target's replies in a tool's structured result, whatever lies around them.

    A reply is an object with ``text`` in a list named ``replies``, or a string in a list named ``target``. Where
    ``condition`` is given, only replies to prompts under that label count.
    """
    if isinstance(data, list):
        for value in data:
            yield from replies_in(value, condition)
    elif isinstance(data, Mapping) and not (condition and _labels(data) and condition not in _labels(data)):
        for key, value in data.items():
            if key in ("replies", "target") and isinstance(value, list):
                unlabelled = bool(condition) and not _labels(data)
                yield from () if unlabelled else _texts(value)
            if key != "reference_replies":
                yield from replies_in(value, condition)


def _labels(record: Mapping[str, Any]) -> list[str]:
    """The names under which a record's prompt was asked: a condition, a template's values, or a set of a contrast."""
    label = record.get("condition", record.get("set"))
    return list(label.values()) if isinstance(label, Mapping) else [label] if label else []


def _texts(replies: list[Any]) -> Iterator[str]:
    for reply in replies:
        if isinstance(reply, str):
            yield reply
        elif isinstance(reply, Mapping) and "text" in reply:
            yield reply["text"]
