"""What an answer hands in: kept in numbers when it is frozen, and tried on a fresh worker before it is scored."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from marple.agent.session import Session
from marple.agent.workbench import Workbench
from marple.errors import SandboxError, ToolError
from marple.tasks.kind import Answer
from marple.tools.contract import ToolResult

if TYPE_CHECKING:
    from marple.tasks.trials import Vectors

__all__ = ["EXPORT_TOOL", "answer_of", "keep_handed_in", "measured_of", "needs_trial", "try_answer"]

EXPORT_TOOL = "export_vectors"
"""The worker's tool that gives the numbers behind handles; investigators are not offered it."""


async def keep_handed_in(session: Session, answer: Answer) -> dict[str, str]:
    """Fetch the numbers of every vector that an answer hands in, and see that it can be tried.

    Returns:
        What goes into the answer's event: ``vectors_ref``, a blob; nothing where no vector is handed in.

    Raises:
        ToolError: a handle is unknown, or what is handed in cannot be tried on this target; it may be corrected.
    """
    handles = sorted(set(session.case.kind.handles(answer)))
    vectors: Vectors = {}
    if handles:
        if session.bench is None:
            raise ToolError(f"there is no worker that could hold {handles[0]!r}; hand in an answer without vectors")
        exported = await session.bench.call(EXPORT_TOOL, {"handles": handles}, seed=0)
        vectors = exported.data["vectors"]
    if session.organism is not None:
        session.case.kind.trial(answer, vectors, session.organism, seed=session.seed)
    if not vectors:
        return {}
    return {"vectors_ref": session.folder.put_blob(json.dumps(vectors).encode(), "application/json")}


async def try_answer(session: Session, bench: Workbench) -> str:
    """Run the trial of the frozen answer on a bench that nobody has experimented on, once.

    Returns:
        Why it could not be measured, which makes the run invalid; '' where it was, or where nothing is to be tried.
    """
    answer = answer_of(session)
    if answer is None or session.organism is None or session.events("trial"):
        return ""

    async def call(tool: str, arguments: Mapping[str, Any], seed: int) -> ToolResult:
        return await bench.call(tool, arguments, seed=seed)

    trial = session.case.kind.trial(answer, _vectors(session), session.organism, seed=session.seed)
    if trial is None:
        return ""
    try:
        measured = await trial.run(call)
    except (SandboxError, ToolError) as error:
        session.folder.append("error", {"where": "trial", "kind": type(error).__name__, "message": str(error)})
        return "trial_failed"
    session.folder.append("trial", {"measured": measured})
    return ""


def needs_trial(session: Session) -> bool:
    """Whether a frozen answer waits to be tried."""
    answer = answer_of(session)
    if answer is None or session.organism is None or session.events("trial"):
        return False
    return session.case.kind.trial(answer, _vectors(session), session.organism, seed=session.seed) is not None


def answer_of(session: Session) -> Answer | None:
    """The frozen answer, or None."""
    events = session.events("answer")
    return session.case.kind.answer.model_validate(events[-1].payload["answer"]) if events else None


def measured_of(session: Session) -> Mapping[str, Any]:
    """What the trial of the answer measured; empty where there was none."""
    events = session.events("trial")
    return events[-1].payload["measured"] if events else {}


def _vectors(session: Session) -> Vectors:
    payload = session.events("answer")[-1].payload
    if "vectors_ref" not in payload:
        return {}
    vectors: Vectors = json.loads(session.folder.get_blob(payload["vectors_ref"]))
    return vectors
