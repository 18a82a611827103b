"""The end of a run: the answer is scored and the result written, once."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from marple.agent.ensemble_report import ensemble_report, with_members
from marple.agent.ledger import used_by
from marple.agent.models import ModelTurn, Usage
from marple.agent.scoring import scores_of
from marple.agent.session import Session
from marple.agent.trying import answer_of
from marple.tasks.materials import Materials
from marple.tasks.outcome import outcome
from marple.traces import Event

__all__ = ["finish", "usage_of"]


def finish(session: Session, materials: Materials, ending: str) -> dict[str, Any]:
    """Score the frozen answer, write ``result.json`` and return its content."""
    answer = answer_of(session)
    status = _valid_status(session, ending)
    scores = scores_of(session, materials.truth, status)
    usage = usage_of(session.folder.events(), now=time.time())
    for kind, payload in (("score", scores), ("run_end", {"status": status, "usage": usage})):
        if not session.events(kind):
            session.folder.append(kind, payload)
    result = {
        "run_id": session.folder.run_id,
        "case": session.case.id,
        "kind": session.case.kind.name,
        "comparability": session.case.kind.comparability,
        "investigator": session.investigator.name,
        "model": session.investigator.model_name,
        "seed": session.seed,
        "status": status,
        "answer": answer.model_dump() if answer else None,
        "truth": materials.truth.model_dump() if materials.truth else None,
        "scores": scores,
        "usage": usage,
        "measured": dict(materials.measured),
        **ensemble_report(session, materials.truth),
        "sandbox": session.bench.stamp if session.bench else {},
    }
    session.folder.write_result(result)
    return result


def _valid_status(session: Session, ending: str) -> str:
    """The ending, unless the target was never asked anything by an investigator that should have."""
    asked = any(event.payload["status"] == "ok" for event in session.experiments())
    # What members found by experiments may be answered with as it is.
    asked = asked or any(m["usage"]["calls"] for event in session.events("ensemble") for m in event.payload["members"])
    answered = bool(session.events("answer"))
    if answered and session.investigator.uses_target and not asked:
        return outcome("target_never_called")
    return ending


def usage_of(events: Sequence[Event], *, now: float | None = None) -> dict[str, Any]:
    """The ``usage`` of a result: what was used by the last event, or by ``now`` in seconds since the epoch."""
    used = used_by(events, now=now)
    totals = dict.fromkeys(("investigator", "auxiliary"), Usage(cost_usd=0.0))
    for event in events:
        if event.type == "model_call":
            role = "auxiliary" if event.role == "auxiliary" else "investigator"
            totals[role] = _plus(totals[role], ModelTurn.from_dict(event.payload["turn"]).usage)
    helped = any(event.type == "model_call" and event.role == "auxiliary" for event in events)
    own = {
        "investigator": totals["investigator"].to_dict(),
        **({"auxiliary": totals["auxiliary"].to_dict()} if helped else {}),
        "turns": used.turns,
        "calls": used.calls,
        "target_tokens": used.target_tokens,
        "target_cost_usd": used.target_cost,
        "seconds": round(used.seconds, 3),
    }
    return with_members(own, [e.payload["members"] for e in events if e.type == "ensemble"])


def _plus(a: Usage, b: Usage) -> Usage:
    unknown = a.cost_usd is None or b.cost_usd is None
    return Usage(
        input_tokens=a.input_tokens + b.input_tokens,
        output_tokens=a.output_tokens + b.output_tokens,
        cache_read_input_tokens=a.cache_read_input_tokens + b.cache_read_input_tokens,
        cache_creation_input_tokens=a.cache_creation_input_tokens + b.cache_creation_input_tokens,
        reasoning_output_tokens=a.reasoning_output_tokens + b.reasoning_output_tokens,
        cost_usd=None if unknown else (a.cost_usd or 0.0) + (b.cost_usd or 0.0),
        reported=a.reported and b.reported,
    )
