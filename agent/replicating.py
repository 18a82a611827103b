"""Claims checked: the calls they cite are made again with fresh seeds, on the target and on a control.

What the control is, `marple.tasks.materials.control_of` says: a sibling from the same recipe, a case's twin, or the
reference. Nothing of it is charged to the investigator's budget.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from marple.agent.effects import Effect, measure
from marple.agent.marking import claim_effects
from marple.agent.session import Session
from marple.agent.trying import answer_of
from marple.agent.workbench import Workbench
from marple.errors import MarpleError, SandboxError, StorageError, ToolError
from marple.tools.contract import ToolResult

__all__ = ["MOST_CALLS", "OpenControl", "replicate"]

MOST_CALLS = 12
"""Cited calls that are made again."""

OpenControl = Callable[[], Awaitable[Workbench | None]]
"""Opens the control's workbench; None where there is no control."""

_HANDLE = re.compile(r"[a-z]+-[0-9a-f]{8,}")


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


def _effects_by_call(session: Session) -> dict[str, list[Effect]]:
    """What is to be measured on each call, those of the claims held most likely first."""
    answer = answer_of(session)
    wanted: dict[str, list[Effect]] = {}
    for claim in sorted(answer.claims if answer else (), key=lambda claim: -claim.credence):
        for call, effect in claim_effects(session, claim):
            effects = wanted.setdefault(call, [])
            if effect not in effects:
                effects.append(effect)
    return wanted


def _fresh_seed(seed: int) -> int:
    """Another seed than the call had, the same each time: the first 31 bits of SHA-256 over what it is for."""
    digest = hashlib.sha256(f"replication/{seed}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1
