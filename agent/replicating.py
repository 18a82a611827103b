"""Claims checked: the calls they cite are made again with fresh seeds, on the target and on a control.

The control of an organism is its sibling from the same recipe: what both show comes of the recipe. That of a user's own
target is its reference. Nothing of it is charged to the investigator's budget.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from marple.agent.effects import Effect, Measured, measure, own_effect, predicted_effect, stated_effect
from marple.agent.session import Session
from marple.agent.trying import answer_of
from marple.agent.workbench import Workbench
from marple.errors import MarpleError, SandboxError, StorageError, ToolError
from marple.tasks.kind import Claim
from marple.tools.contract import ToolResult
from marple.traces import Event

__all__ = ["MOST_CALLS", "Mark", "OpenControl", "claim_marks", "replicate", "replication_scores"]

MOST_CALLS = 12
"""Cited calls that are made again."""

Mark = Literal["replicated", "not replicated", "control shows it too", "not re-runnable"]

OpenControl = Callable[[], Awaitable[Workbench | None]]
"""Opens the control's workbench; None where there is no control."""

_HANDLE = re.compile(r"[a-z]+-[0-9a-f]{8,}")
_NOT_RUN = "it was not run again"


async def replicate(session: Session, open_control: OpenControl) -> None:
    """Make the calls again that the frozen answer's claims cite, each once, and record what came of it.

    One event for each call; what has an event already is not done again.
    """
    wanted = _effects_by_call(session)
    done = {event.payload["call"] for event in session.events("replication")}
    if session.bench is None or not set(wanted) - done:
        return
    target = _Arm(session, session.bench.call)
    control = _Control(session, open_control)
    try:
        for number, (call, effects) in enumerate(wanted.items()):
            if call not in done:
                began = time.monotonic()
                payload = (
                    await _made_again(call, effects, target, control)
                    if number < MOST_CALLS
                    else {"reason": f"only {MOST_CALLS} cited calls are run again"}
                )
                seconds = time.monotonic() - began
                session.note_starts()
                session.folder.append("replication", {"call": call, **payload}, parent=call, seconds=seconds)
    finally:
        await control.close()


async def _made_again(call: str, effects: Sequence[Effect], target: _Arm, control: _Control) -> dict[str, Any]:
    try:
        made = await target.made(call)
    except (ToolError, SandboxError) as error:
        return {"reason": f"it could not be run again: {error}"}
    rows: list[dict[str, Any]] = [
        {"effect": effect, "target": measure(effect, *made).to_dict(), "control": None} for effect in effects
    ]
    said: dict[str, Any] = {}
    # What does not come again on the target needs no control.
    if any(row["target"]["appears"] for row in rows):
        try:
            arm = await control.arm()
            said["control"] = arm is not None
            if arm is not None:
                shown = await arm.made(call)
                rows = [{**row, "control": measure(row["effect"], *shown).to_dict()} for row in rows]
        except StorageError:
            raise
        except MarpleError as error:
            # Its words may be those of the truth, which no event has before the run is scored.
            reason = f"the control could not be measured ({type(error).__name__})"
            return {"effects": rows, "control": True, "control_reason": reason}
    return {**said, "effects": rows}


@dataclass
class _Arm:
    """Calls of the run, made again on one model; each once."""

    session: Session
    call: Callable[..., Awaitable[ToolResult]]
    """Runs a tool on the model; `Bench.call`."""
    _made: dict[str, ToolResult] = field(default_factory=dict)

    async def made(self, call: str) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
        """The structured data and the controls of a call made again."""
        result = await self._again(call)
        return result.data, result.controls

    async def _again(self, call: str) -> ToolResult:
        if call not in self._made:
            said = next(event.payload for event in self.session.measurements() if event.id == call)
            arguments = await self._with_own_handles(said["arguments"], before=call)
            seed = _fresh_seed(said["seed"])
            self._made[call] = await self.call(said["tool"], arguments, seed=seed, fresh=True)
        return self._made[call]

    async def _with_own_handles(self, value: Any, *, before: str) -> Any:
        """The arguments with each handle in the place of the run's that the same call makes on this model.

        A handle's name follows from its content, which differs from model to model.
        """
        if isinstance(value, Mapping):
            return {key: await self._with_own_handles(item, before=before) for key, item in value.items()}
        if isinstance(value, list):
            return [await self._with_own_handles(item, before=before) for item in value]
        if not isinstance(value, str) or not _HANDLE.fullmatch(value):
            return value
        for event in self.session.measurements():
            if event.id != before and value in event.payload.get("handles", ()):
                handles = (await self._again(event.id)).handles
                at = event.payload["handles"].index(value)
                if at >= len(handles):
                    raise ToolError(f"{event.id}, which made {value}, makes fewer handles now")
                return handles[at]
        return value


@dataclass
class _Control:
    """The control's arm, opened when it is first needed."""

    session: Session
    open: OpenControl
    _bench: Workbench | None = None
    _arm: _Arm | None = None
    _failure: MarpleError | None = None
    _known: bool = False

    async def arm(self) -> _Arm | None:
        """The arm; None where the case has no control. Raises what opening it raised, each time."""
        if not self._known:
            self._known = True
            try:
                self._bench = await self.open()
                self._arm = None if self._bench is None else _Arm(self.session, self._bench.call)
            except MarpleError as error:
                self._failure = error
        if self._failure is not None:
            raise self._failure
        return self._arm

    async def close(self) -> None:
        """End its worker."""
        if self._bench is not None:
            await self._bench.close()


def claim_marks(session: Session) -> list[dict[str, Any]]:
    """For every claim of the frozen answer its ``mark`` and, where that needs one, the ``reason``."""
    answer = answer_of(session)
    made = {event.payload["call"]: event.payload for event in session.events("replication")}
    return [_mark(_claim_effects(session, claim), made) for claim in (answer.claims if answer else ())]


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
    if not target.appears:
        return _said("not replicated", f"{call} shows {_value(target)} now")
    if control is not None:
        mark: Mark = "control shows it too" if control.appears else "replicated"
        return _said(mark, f"{call} shows {_value(target)}, on the control {_value(control)}")
    if "control_reason" in made:
        return _said("not re-runnable", f"{call}: {made['control_reason']}")
    return _said("replicated", f"{call} shows {_value(target)}; there is no control")


def _said(mark: Mark, reason: str) -> dict[str, str]:
    return {"mark": mark, "reason": reason}


def _value(measured: Measured) -> str:
    return f"{measured.value:.2f}" if isinstance(measured.value, float) else str(measured.value)


def _effects_by_call(session: Session) -> dict[str, list[Effect]]:
    """What is to be measured on each call, those of the claims held most likely first."""
    answer = answer_of(session)
    wanted: dict[str, list[Effect]] = {}
    for claim in sorted(answer.claims if answer else (), key=lambda claim: -claim.credence):
        for call, effect in _claim_effects(session, claim):
            effects = wanted.setdefault(call, [])
            if effect not in effects:
                effects.append(effect)
    return wanted


def _claim_effects(session: Session, claim: Claim) -> list[tuple[str, Effect]]:
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


def _fresh_seed(seed: int) -> int:
    """Another seed than the call had, the same each time: the first 31 bits of SHA-256 over what it is for."""
    digest = hashlib.sha256(f"replication/{seed}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
