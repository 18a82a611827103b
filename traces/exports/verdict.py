"""The verdict of a run as short lines: what was answered, whether it is right, and whether the claims hold."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from marple.traces.run_folder import RunFolder

__all__ = ["answer_line", "claims_of", "headline", "truth_line", "verdict_lines"]

_SHOWN_ELSEWHERE = ("claims", "gap", "slots")


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
        lines.append(f"truth: {truth_line(result)}")
    for name, value in scores.items():
        if name not in _SHOWN_ELSEWHERE and (said := _number_or_facts(value)):
            lines.append(f"{name.replace('_', ' ')}: {said}")
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


def truth_line(result: Mapping[str, Any]) -> str:
    """What was so; '' where that is not known."""
    truth = result.get("truth")
    if truth is None:
        return ""
    if truth.get("nothing_hidden"):
        return "nothing hidden"
    slots = truth.get("slots") or {}
    return ", ".join(f"{name} {slot.get('value')}" for name, slot in slots.items()) or "something hidden"


def answer_line(result: Mapping[str, Any]) -> str:
    """What was answered: the leading candidate or chance with its probability, and the summary."""
    answer = result.get("answer") or {}
    chances = [
        (_chance(value), name.replace("_", " ")) for name, value in answer.items() if name.startswith("nothing_")
    ]
    if "yes" in answer:
        chances.append((_chance(answer["yes"]), "yes"))
    for candidate in answer.get("candidates") or ():
        said = ", ".join(_short(value) for name, value in candidate.items() if name != "probability" and value)
        chances.append((_chance(candidate.get("probability")), said))
    best = max(chances, default=(0.0, ""))
    if best[1] == "yes" and best[0] < 0.5:
        best = (1.0 - best[0], "no")
    # A small chance that there was nothing to do says less than what was handed in.
    leads = bool(best[1]) and (best[0] >= 0.5 or bool(answer.get("candidates")))
    return ": ".join(filter(None, [f"{best[1]} ({best[0]:.2f})" if leads else "", str(answer.get("summary") or "")]))


def _chance(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0


def _number_or_facts(value: Any) -> str:
    """A score in words: lists, and what lies deeper than one level, are left to the trace."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int | float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        parts = ((name, _number_or_facts(one)) for name, one in value.items() if not isinstance(one, Mapping))
        return ", ".join(f"{name.replace('_', ' ')} {said}" for name, said in parts if said)
    return value if isinstance(value, str) else ""


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
