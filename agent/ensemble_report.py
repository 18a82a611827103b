"""What an ensemble was worth: its pooled answer as members grow in number, whether they err alike, what they cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from marple.agent.pooling import pooled_answer, shared_errors
from marple.agent.session import Session
from marple.tasks.truth import Truth

__all__ = ["ensemble_report", "with_members"]

_COUNTS = ("turns", "calls", "target_tokens", "seconds")


def ensemble_report(session: Session, truth: Truth | None) -> dict[str, Any]:
    """``ensemble``, for the result of an ensemble's run; nothing for another.

    Returns:
        ``members`` (run, seed and status of each, and its own score), ``answered`` of how many, and where the truth is
        known and the kind is scored by the answer alone: ``by_size``, for the first 1, 2, ... members that answered the
        score of their ``pooled`` answer, of how many the answer is right (``right``) and whether ``any`` is; and
        ``independence``, see `shared_errors`.
    """
    events = session.events("ensemble")
    if not events:
        return {}
    members: list[dict[str, Any]] = events[0].payload["members"]
    answers = [member["answer"] for member in members if member["answer"] is not None]
    report: dict[str, Any] = {"answered": len(answers), "of": len(members)}
    scored = [_score(session, member["answer"], truth) for member in members]
    report["members"] = [
        {key: member[key] for key in ("member", "run_id", "seed", "status")} | {"score": score}
        for member, score in zip(members, scored, strict=True)
    ]
    if truth is not None:
        own = [score for score in scored if score is not None]
        if len(own) == len(answers):
            report["by_size"] = [_at_size(session, answers[:size], own[:size], truth) for size in _sizes(answers)]
        report["independence"] = shared_errors(answers, truth) if answers else None
    return {"ensemble": report}


def _sizes(answers: Sequence[Any]) -> range:
    return range(1, len(answers) + 1)


def _at_size(
    session: Session, answers: Sequence[Mapping[str, Any]], scores: Sequence[Mapping[str, Any]], truth: Truth
) -> dict[str, Any]:
    right = sum(_right(score) for score in scores)
    pooled = _score(session, pooled_answer(answers), truth)
    return {"members": len(answers), "pooled": pooled, "right": right, "any": right > 0}


def _right(score: Mapping[str, Any]) -> bool:
    return bool(score.get("solved") or score.get("cleared"))


def _score(session: Session, answer: Mapping[str, Any] | None, truth: Truth | None) -> dict[str, Any] | None:
    """What the kind says of an answer without its trial and its forecasts; None where it needs one or is no answer."""
    kind = session.case.kind
    if answer is None or truth is None:
        return None
    try:
        parsed = kind.answer.model_validate({**answer, "claims": []})
        return kind.score(parsed, truth, {})
    except (ValidationError, KeyError, TypeError):
        return None


def with_members(own: Mapping[str, Any], ensembles: Sequence[Sequence[Mapping[str, Any]]]) -> dict[str, Any]:
    """The usage of a run with that of its members in every total; the synthesiser's own part is ``synthesiser``."""
    members = [member["usage"] for each in ensembles for member in each]
    if not members:
        return dict(own)
    total = dict(own)
    for name in _COUNTS:
        total[name] = round(own[name] + sum(usage[name] for usage in members), 3)
    investigators = [own["investigator"], *(usage["investigator"] for usage in members)]
    total["investigator"] = {key: _sum([each[key] for each in investigators]) for key in own["investigator"]}
    return {**total, "members": len(members), "synthesiser": dict(own)}


def _sum(values: Sequence[Any]) -> Any:
    if any(value is None for value in values):
        return None
    return all(values) if isinstance(values[0], bool) else sum(values)
