"""One line for every event, for the list on a run's page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from marple.traces.event import Event
from marple.traces.review.fields import items, mapping, number, of, text, whole
from marple.traces.review.opened import Opened

__all__ = ["Row", "event_row", "event_rows", "first_line"]

_LINE = 240
_NOTEBOOK = frozenset({"plan", "hypothesis", "predict", "submit"})


@dataclass(frozen=True)
class Row:
    """An event as its line shows it."""

    id: str
    type: str
    role: str
    name: str
    """What it is, in a word or two."""
    line: str
    """What it says."""
    tone: str
    """``good``, ``bad``, ``unsure`` or ''."""
    seconds: float | None
    ts: float
    turn: int | None
    """Set where a turn of the investigator begins."""
    minor: bool
    """Bookkeeping, hidden until asked for."""
    untrusted: bool
    """Whether its line quotes the target or the agent's own code."""
    cited: int
    labels: Sequence[str]


def event_rows(run: Opened, events: Sequence[Event]) -> list[Row]:
    """The rows of some events."""
    labelled: dict[str, list[str]] = {}
    for label in run.labels:
        if label.event:
            labelled.setdefault(label.event, []).append(label.label or "comment")
    return [
        event_row(event, cited=len(run.cited_by.get(event.id, ())), labels=labelled.get(event.id, ()))
        for event in events
    ]


def event_row(event: Event, *, cited: int = 0, labels: Sequence[str] = ()) -> Row:
    """The row of one event; a type that is not known shows what it holds."""
    name, line, tone = _DESCRIBED.get(event.type, _unknown)(event)
    said = event.payload
    starts = event.type == "model_call" and said.get("purpose", "investigate") == "investigate"
    on_target = event.type == "tool_call" and bool(said.get("on_target"))
    return Row(
        id=event.id,
        type=event.type,
        role=event.role,
        name=name[:60],
        line=first_line(line),
        tone=tone,
        seconds=number(event.seconds),
        ts=number(event.ts) or 0.0,
        turn=whole(said.get("turn_number")) if starts else None,
        minor=_is_minor(event),
        untrusted=on_target,
        cited=cited,
        labels=labels,
    )


def first_line(said: str) -> str:
    """The first line of a text, cut where it is long."""
    line = said.strip().split("\n")[0]
    return line if len(line) <= _LINE else f"{line[:_LINE]}…"


def _is_minor(event: Event) -> bool:
    if event.type in ("call_start", "worker_start"):
        return True
    said = event.payload
    return event.type == "tool_call" and said.get("tool") in _NOTEBOOK and said.get("status") == "ok"


Described = tuple[str, str, str]


def _model_call(event: Event) -> Described:
    turn = mapping(event.payload.get("turn"))
    purpose = text(event.payload.get("purpose")) or "investigate"
    calls = [text(mapping(one).get("name")) for one in items(turn.get("tool_calls"))]
    thinking = [one for one in items(turn.get("thinking")) if isinstance(one, str)]
    said = (
        text(turn.get("text"))
        or (thinking[0] if thinking else "")
        or (f"calls {', '.join(calls)}" if calls else "nothing")
    )
    tone = "bad" if turn.get("stop") in ("refusal", "context_overflow", "length") else ""
    role = "" if event.role == "investigator" else f"{event.role} "
    return (f"{role}{'thinks' if purpose == 'investigate' else purpose}", said, tone)


def _tool_call(event: Event) -> Described:
    said = event.payload
    status = text(said.get("status"))
    line = text(said.get("text"))
    if said.get("untrusted"):
        line = line.partition("\n")[2] or line
    if status != "ok":
        return (f"{said.get('tool')} {status.replace('_', ' ')}", line, "bad")
    return (str(said.get("tool")), line, "")


def _hypothesis(event: Event) -> Described:
    said = event.payload
    credence = number(said.get("credence"))
    tone = "bad" if said.get("action") == "reject" else ""
    return (f"{said.get('id')} {'–' if credence is None else f'{credence:.2f}'}", text(said.get("statement")), tone)


def _prediction(event: Event) -> Described:
    chance = number(event.payload.get("probability"))
    return (f"predicts {'–' if chance is None else f'{chance:.2f}'}", text(event.payload.get("statement")), "")


def _measurement(event: Event) -> Described:
    said = event.payload
    bits = number(said.get("surprise_bits")) or 0.0
    came = said.get("happened") is True
    return ("came true" if came else "did not come true", text(said.get("text")), "bad" if bits >= 1 else "good")


def _replication(event: Event) -> Described:
    said = event.payload
    effects = [mapping(one) for one in items(said.get("effects"))]
    if not effects:
        return ("not made again", f"{said.get('call')}: {text(said.get('reason'))}", "unsure")
    again = sum(of(one, "target", "appears") is True for one in effects)
    control = sum(of(one, "control", "appears") is True for one in effects)
    line = f"{said.get('call')}: {again} of {len(effects)} effects came again"
    line += f"; the control shows {control}" if any(one.get("control") for one in effects) else ""
    return ("made again", line, "good" if again == len(effects) and not control else "bad")


def _forecast(event: Event) -> Described:
    said = event.payload
    if "probabilities" in said:
        return ("forecasts", f"{len(items(said['probabilities']))} probabilities on held-out prompts", "")
    return ("asks", text(said.get("text")), "")


def _score(event: Event) -> Described:
    said = event.payload
    parts = [f"{key} {value}" for key, value in said.items() if isinstance(value, bool | int | float)]
    return ("score", ", ".join(parts), "")


def _answer(event: Event) -> Described:
    said = mapping(event.payload.get("answer"))
    return ("answer", text(said.get("summary")) or f"{len(items(said.get('claims')))} claims", "")


def _control(event: Event) -> Described:
    did = text(event.payload.get("did"))
    words = {"pause": "paused", "go": "goes on", "cancel": "cancelled"}
    return (words.get(did, did or "control"), f"asked for by {text(event.payload.get('by')) or 'somebody'}", "unsure")


def _ensemble(event: Event) -> Described:
    members = items(event.payload.get("members"))
    return ("ensemble", f"{len(members)} members are through", "")


def _trial(event: Event) -> Described:
    measured = mapping(event.payload.get("measured"))
    beside = list(mapping(measured.get("arms"))) or list(mapping(measured.get("sets")))
    return ("trial", f"what was handed in, tried: {', '.join(str(one).replace('_', ' ') for one in beside)}", "")


def _plain(name: str, *keys: str, tone: str = "") -> Callable[[Event], Described]:
    def describe(event: Event) -> Described:
        said = " ".join(str(event.payload[key]) for key in keys if event.payload.get(key))
        return (name, said, tone)

    return describe


def _unknown(event: Event) -> Described:
    shown = ", ".join(f"{key}: {str(value)[:80]}" for key, value in list(event.payload.items())[:6])
    return (event.type or "event", shown, "")


_DESCRIBED: Mapping[str, Callable[[Event], Described]] = {
    "run_start": _plain("start", "case"),
    "run_resume": _plain("resumed", "torn", tone="unsure"),
    "worker_start": _plain("worker", "worker"),
    "call_start": _plain("calls", "tool", "model_turn"),
    "model_call": _model_call,
    "tool_call": _tool_call,
    "hypothesis": _hypothesis,
    "prediction": _prediction,
    "measurement": _measurement,
    "plan": _plain("plan", "proxy"),
    "check_in": _plain("check-in", "text"),
    "approval": _plain("approval", "tool", "reason", tone="unsure"),
    "limit": _plain("limit", "limit", "text", tone="unsure"),
    "error": _plain("error", "message", tone="bad"),
    "answer": _answer,
    "forecast": _forecast,
    "replication": _replication,
    "trial": _trial,
    "control": _control,
    "compaction": _plain("compaction", "upto", "reason", tone="unsure"),
    "note": _plain("note", "text"),
    "ensemble": _ensemble,
    "score": _score,
    "run_end": _plain("end", "status"),
}
