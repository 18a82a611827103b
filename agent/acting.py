"""The calls of a turn: approved, made in their declared order, recorded whole."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import time
import traceback
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

from marple.agent.bench import WORKER_ENDS
from marple.agent.investigator import NOTEBOOK_TOOLS
from marple.agent.ledger import exceeded_limit
from marple.agent.models import ToolCall
from marple.agent.notebook import UNTRUSTED
from marple.agent.prompt_writing import written_arguments
from marple.agent.recording import recorded
from marple.agent.session import CallProgress, Session
from marple.agent.trying import keep_handed_in
from marple.errors import (
    EndpointError,
    SandboxError,
    ToolError,
    UnknownNameError,
)
from marple.sandboxes import OnProgress
from marple.traces import Event

__all__ = ["approve_calls", "call_seed", "make_calls"]


def call_seed(run_seed: int, turn: int, index: int) -> int:
    """The seed of a call, from 0 to 2**31 - 1: the first 31 bits of SHA-256 over run seed, turn and place."""
    digest = hashlib.sha256(f"{run_seed}/{turn}/{index}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


async def approve_calls(session: Session, turn: int) -> None:
    """Ask the approver about every call of the turn that has no decision yet; refusals are recorded."""
    decided = {(e.payload["turn_number"], e.payload["index"]) for e in session.events("approval")}
    for index, call in enumerate(_calls(session, turn)):
        if (turn, index) in decided or call.name in NOTEBOOK_TOOLS or call.arguments is None:
            continue
        decision = await session.approve(call.name, call.arguments)
        if not decision.allowed:
            payload = {"turn_number": turn, "index": index, "tool": call.name, "allowed": False}
            session.folder.append("approval", {**payload, "reason": decision.reason}, role="human")


async def make_calls(session: Session, turn: int) -> None:
    """Make every call of the turn that has no result yet; neighbours that declare themselves parallel run together."""
    done = session.results(turn)
    waiting = [(i, call) for i, call in enumerate(_calls(session, turn)) if i not in done]
    for together, group in itertools.groupby(waiting, key=lambda item: _is_parallel(session, item[1])):
        if together:
            await asyncio.gather(*(_make_call(session, turn, i, call) for i, call in group))
        else:
            for i, call in group:
                await _make_call(session, turn, i, call)


def _calls(session: Session, turn: int) -> tuple[ToolCall, ...]:
    event = session.model_call(turn)
    return session.turn_of(event).tool_calls if event else ()


def _is_parallel(session: Session, call: ToolCall) -> bool:
    tool = session.bench.tools.get(call.name) if session.bench else None
    return tool is not None and tool.parallel


async def _make_call(session: Session, turn: int, index: int, call: ToolCall) -> None:
    begun = [e for e in _starts(session, turn) if e.payload["call"][1] == index]
    attempt = len(begun) + 1
    start = session.folder.append("call_start", {"call": [turn, index], "tool": call.name, "attempt": attempt})
    place = {"turn_number": turn, "index": index, "call_id": call.id, "tool": call.name, "attempt": attempt}
    clock = time.monotonic()
    outcome = await _outcome(session, turn, index, call)
    session.note_starts()
    session.folder.append(
        "tool_call",
        {**place, "arguments": call.arguments, **outcome},
        role="harness" if call.name in NOTEBOOK_TOOLS else "target",
        parent=start.id,
        seconds=time.monotonic() - clock,
    )


async def _outcome(session: Session, turn: int, index: int, call: ToolCall) -> dict[str, Any]:
    """What the investigator is told and what is recorded of a call; nothing it does wrong raises."""
    try:
        if call.arguments is None:
            raise ToolError(call.error or "the arguments are not a JSON object")
        if call.name == "submit":
            return {"status": "ok", "text": await _submit(session, (turn, index), call.arguments)}
        if call.name in NOTEBOOK_TOOLS:
            return {"status": "ok", "text": session.notebook.call(call.name, call.arguments, (turn, index))}
        _check_may_run(session, turn, index, call.name)
        seed = call_seed(session.seed, turn, index)
        arguments = await written_arguments(session, (turn, index), call.name, call.arguments, seed=seed)
    except ToolError as error:
        return {"status": "refused", "by": "harness", "text": str(error)}
    asked = {} if arguments == call.arguments else {"arguments": arguments, "asked": call.arguments}
    return asked | await _experiment(session, turn, index, call.name, arguments)


async def _submit(session: Session, place: tuple[int, int], arguments: Mapping[str, Any]) -> str:
    answer = session.notebook.read_answer(arguments)
    try:
        handed_in = await keep_handed_in(session, answer)
    except SandboxError as error:
        raise ToolError(f"what is handed in could not be read from the worker ({error}); make it again") from error
    return session.notebook.freeze(answer, place, handed_in)


async def _experiment(
    session: Session, turn: int, index: int, tool: str, arguments: Mapping[str, Any]
) -> dict[str, Any]:
    assert session.bench is not None
    seed = call_seed(session.seed, turn, index)
    ran: dict[str, Any] = {"on_target": True, "seed": seed}
    listener = _listener(session, turn, index, tool)
    try:
        if tool in session.bench.code_tools:
            ran["untrusted"] = True
            owner = session.folder.run_id
            result = await session.bench.call_code(tool, arguments, owner=owner, seed=seed, on_progress=listener)
            result = replace(result, text=f"{UNTRUSTED}\n{result.text}")
        else:
            result = await session.bench.call(tool, arguments, seed=seed, on_progress=listener)
    except ToolError as error:
        return {"status": "refused", "text": str(error)}
    except WORKER_ENDS as error:
        session.folder.append("error", {"where": "worker", "kind": type(error).__name__, "message": str(error)})
        text = f"{type(error).__name__}: {error}. The call gave no result; a fresh worker takes the next one."
        return {**ran, "status": "worker_lost", "text": text}
    except SandboxError as error:
        what = {"where": "tool", "tool": tool, "kind": type(error).__name__, "message": str(error)}
        session.folder.append("error", {**what, "traceback": traceback.format_exc()})
        if isinstance(error, EndpointError):
            ran["cost"] = dict(zip(("prompt_tokens", "generated_tokens"), error.tokens, strict=True))
        return {**ran, "status": "failed", "text": f"the tool failed: {error}"}
    return {**ran, "status": "ok", **recorded(session.folder, result)}


def _listener(session: Session, turn: int, index: int, tool: str) -> OnProgress | None:
    if session.on_call is None:
        return None
    tell = session.on_call
    return lambda done, total, what: tell(CallProgress(turn, index, tool, done, total, what))


def _check_may_run(session: Session, turn: int, index: int, tool: str) -> None:
    """Refuse an unknown tool, a call that was not approved and one beyond the budget, with the reason."""
    offered = {schema.name for schema in session.worker_tools()}
    if tool not in offered:
        raise ToolError(str(UnknownNameError("tool", tool, {*offered, *NOTEBOOK_TOOLS})))
    for event in session.events("approval"):
        if (event.payload["turn_number"], event.payload["index"]) == (turn, index):
            raise ToolError(f"this call was not approved: {event.payload['reason']}")
    used = session.used()
    limit = exceeded_limit(session.budget, replace(used, calls=used.calls + _under_way(session, turn, index, offered)))
    if session.wrapping_up or limit in ("calls", "target_tokens", "seconds", "cost"):
        raise ToolError(f"no more experiments: the limit on {limit or 'the run'} is reached; call submit")


def _under_way(session: Session, turn: int, index: int, experiments: Collection[str]) -> int:
    """Experiments of the turn that were begun beside this one and have no result yet."""
    begun = {e.payload["call"][1] for e in _starts(session, turn) if e.payload["tool"] in experiments}
    return len(begun - session.results(turn).keys() - {index})


def _starts(session: Session, turn: int) -> list[Event]:
    return [e for e in session.events("call_start") if e.payload.get("call", [None])[0] == turn]
