"""The verdict of a run as short lines: what was answered, whether it is right, and whether the claims hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from marple.traces.run_folder import RunFolder

__all__ = ["claims_of", "headline", "verdict_lines"]


def headline(run: RunFolder) -> str:
    """One line that names the run: case, investigator, model, seed and how it stands."""
    spec, result = run.spec, run.result or {}
    model = f" ({spec['model']})" if spec.get("model") else ""
    status = result.get("status") or run.status
    return f"{spec.get('case')} · {spec.get('investigator')}{model} · seed {spec.get('seed')} · {status}"


def verdict_lines(result: Mapping[str, Any]) -> list[str]:
    """Answer, truth, scores and cost of a finished run, one fact a line."""
    answer, scores = result.get("answer") or {}, result.get("scores") or {}
    lines = [f"status: {result.get('status')}"]
    for name, value in answer.items():
        if name not in ("claims", "candidates") and value not in (None, "", [], {}):
            lines.append(f"{name.replace('_', ' ')}: {_short(value)}")
    for candidate in answer.get("candidates") or ():
        rest = ", ".join(f"{k} {_short(v)}" for k, v in candidate.items() if k != "probability" and v is not None)
        lines.append(f"candidate: {candidate.get('probability')} {rest}")
    if result.get("truth") is not None:
        lines.append(f"truth: {_truth(result['truth'])}")
    lines += [f"{name}: {_short(value)}" for name, value in scores.items() if name not in ("claims", "gap")]
    usage = result.get("usage") or {}
    used = {name: usage[name] for name in ("turns", "calls", "target_tokens", "seconds") if name in usage}
    cost = (usage.get("investigator") or {}).get("cost_usd")
    return [*lines, f"used: {_short(used)}, cost in USD {'unknown' if cost is None else cost}"]


def claims_of(result: Mapping[str, Any]) -> list[tuple[Mapping[str, Any], str]]:
    """Every claim of the answer with its mark and the reason for it."""
    claims = (result.get("answer") or {}).get("claims") or []
    marks = (result.get("scores") or {}).get("claims") or []
    said = [
        f"{mark.get('mark')}: {mark.get('reason')}" if mark.get("reason") else str(mark.get("mark")) for mark in marks
    ]
    return [(claim, said[i] if i < len(said) else "not replayed") for i, claim in enumerate(claims)]


def _truth(truth: Mapping[str, Any]) -> str:
    if truth.get("nothing_hidden"):
        return "nothing hidden"
    slots = truth.get("slots") or {}
    return ", ".join(f"{name} {slot.get('value')}" for name, slot in slots.items()) or "something hidden"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
