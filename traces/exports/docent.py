"""Runs in the shape that Docent's SDK ingests: an ``AgentRun`` with one transcript of messages and flat metadata.

All that matters is in the messages, since only those are searched and judged there; each names its event. Docent gives
the ids itself; the run's own is in the metadata.

Written for docent-python 0.1 (https://docs.transluce.org).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from marple.traces.exports.steps import Step, steps_of
from marple.traces.exports.verdict import claims_of, headline, verdict_lines
from marple.traces.run_folder import RunFolder

__all__ = ["docent_run", "docent_runs"]


def docent_runs(runs: Sequence[RunFolder]) -> str:
    """The JSON text of a list of agent runs."""
    return json.dumps([docent_run(run) for run in runs], ensure_ascii=False, indent=1) + "\n"


def docent_run(run: RunFolder) -> dict[str, Any]:
    """One agent run as JSON values.

    Raises:
        CorruptTraceError: the run cannot be read.
    """
    messages = [_message(step) for step in steps_of(run)]
    if run.result is not None:
        messages.append({"role": "user", "content": _verdict(run)})
    metadata = _flat(run)
    transcript = {"name": "investigation", "messages": messages, "metadata": metadata}
    return {
        "name": headline(run),
        "transcripts": [transcript],
        "metadata": metadata,
    }


def _message(step: Step) -> dict[str, Any]:
    text = f"[{step.event.id}] {step.text}"
    if step.kind == "turn":
        thought = [{"type": "reasoning", "reasoning": step.thinking}] if step.thinking else []
        calls = [
            {"id": c.id, "type": "function", "function": c.tool, "arguments": dict(c.arguments)} for c in step.calls
        ]
        content = [*thought, {"type": "text", "text": text}]
        return {"role": "assistant", "content": content, "tool_calls": calls or None}
    if step.kind == "result":
        error = {"detail": step.text} if step.failed else None
        return {
            "role": "tool",
            "content": text,
            "tool_call_id": step.call_id,
            "function": step.tool,
            "error": error,
        }
    return {"role": "user", "content": text}


def _verdict(run: RunFolder) -> str:
    result = run.result or {}
    lines = ["Verdict", *verdict_lines(result)]
    for claim, mark in claims_of(result):
        cited = ", ".join(map(str, claim.get("evidence", ())))
        lines.append(f"claim {claim.get('credence')}: {claim.get('statement')} ({cited}) - {mark}")
    return "\n".join(lines)


def _flat(run: RunFolder) -> dict[str, Any]:
    """Scalars only, with the scores under ``scores``, where Docent looks for them."""
    spec, result = run.spec, run.result or {}
    usage, scores = result.get("usage") or {}, result.get("scores") or {}
    named = {name: spec.get(name) for name in ("run_id", "case", "kind", "investigator", "model", "seed")}
    amounts = {name: usage.get(name) for name in ("turns", "calls", "target_tokens", "seconds")}
    numbers = {name: value for name, value in scores.items() if isinstance(value, bool | int | float)}
    return {**named, "status": result.get("status") or run.status, **amounts, "scores": numbers}
