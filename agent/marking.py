"""What becomes of a claim whose calls were made again: its mark, and the reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from marple.agent.effects import Effect, Measured, own_effect, predicted_effect, stated_effect
from marple.agent.session import Session
from marple.agent.trying import answer_of
from marple.tasks.kind import Claim
from marple.traces import Event

__all__ = ["Mark", "claim_effects", "claim_marks", "replication_scores"]

Mark = Literal["replicated", "not replicated", "control shows it too", "not re-runnable"]

_NOT_RUN = "it was not run again"


def claim_marks(session: Session) -> list[dict[str, Any]]:
    """For every claim of the frozen answer its ``mark`` and, where that needs one, the ``reason``."""
    answer = answer_of(session)
    made = {event.payload["call"]: event.payload for event in session.events("replication")}
    return [_mark(claim_effects(session, claim), made) for claim in (answer.claims if answer else ())]


def replication_scores(session: Session) -> dict[str, Any]:
    """``claims``, their marks, and ``replication``, how many of them were replicated; empty without any claim."""
    marks = claim_marks(session)
    if not marks:
        return {}
    replicated = sum(mark["mark"] == "replicated" for mark in marks)
    return {"claims": marks, "replication": {"n": replicated, "n_total": len(marks)}}


def _mark(effects: Sequence[tuple[str, Effect]], made: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    if not effects:
        return _said("not re-runnable", "no stated effect")
    each = [_effect_mark(call, effect, made.get(call, {"reason": _NOT_RUN})) for call, effect in effects]
    order: Sequence[Mark] = ("not replicated", "control shows it too", "not re-runnable", "replicated")
    return min(each, key=lambda one: order.index(one["mark"]))


def _effect_mark(call: str, effect: Effect, made: Mapping[str, Any]) -> dict[str, str]:
    row = next((row for row in made.get("effects", ()) if row["effect"] == effect), None)
    if row is None:
        return _said("not re-runnable", f"{call}: {made.get('reason', _NOT_RUN)}")
    target, control = (row[arm] and Measured(**row[arm]) for arm in ("target", "control"))
    if target.value is None:
        what = "number" if effect["sort"] == "number" else "replies"
        return _said("not re-runnable", f"{call} has no {what} that the effect speaks of")
    shown = f"{call} shows {_bound(effect)}{_value(target)}"
    if not target.appears:
        return _said("not replicated", f"{shown} now")
    if control is not None:
        mark: Mark = "control shows it too" if control.appears else "replicated"
        return _said(mark, f"{shown}, on the control {_value(control)}")
    if "control_reason" in made:
        return _said("not re-runnable", f"{call}: {made['control_reason']}")
    return _said("replicated", f"{shown}; there is no control")


def _said(mark: Mark, reason: str) -> dict[str, str]:
    return {"mark": mark, "reason": reason}


def _bound(effect: Effect) -> str:
    """The name of a number and what was said of it."""
    if effect["sort"] != "number":
        return ""
    bound = "at_most" if "at_most" in effect else "at_least"
    return f"{effect['number']} ({bound.replace('_', ' ')} {effect[bound]:.2f}) "


def _value(measured: Measured) -> str:
    return f"{measured.value:.2f}" if isinstance(measured.value, float) else str(measured.value)


def claim_effects(session: Session, claim: Claim) -> list[tuple[str, Effect]]:
    """What the claim states; else what was predicted of its calls and came true; else what its calls say themselves."""
    if claim.shows is not None:
        return [(claim.shows.call, stated_effect(claim.shows))]
    cited = list(dict.fromkeys(claim.evidence))
    said = {event.id: event.payload for event in session.events("prediction")}
    settled = [event.payload for event in session.events("measurement") if event.payload["happened"]]
    predicted = [
        (one["experiment"], predicted_effect(said[one["prediction"]])) for one in settled if one["experiment"] in cited
    ]
    if predicted:
        return predicted
    calls: dict[str, Event] = {event.id: event for event in session.measurements()}
    own = [
        (call, own_effect(session.result_data(calls[call].payload), claim.statement)) for call in cited if call in calls
    ]
    return [(call, effect) for call, effect in own if effect is not None]
