"""A language model asked to judge free text, several times: a verdict or a typed failure, never a number."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from marple.agent.models import Model, UserMessage
from marple.agent.session import Session
from marple.agent.trying import answer_of
from marple.errors import ModelError, UsageError
from marple.tasks.judge import (
    Failure,
    Judgement,
    LabelledReport,
    Rubric,
    Verdict,
    agreement,
    combine,
    load_rubric,
    new_nonce,
    question,
    read_verdict,
    report_text,
)
from marple.tasks.outcome import outcome
from marple.tasks.truth import Truth

__all__ = ["REPEATS", "judge_report", "judge_run", "validate"]

REPEATS = 3
"""How often each question is asked."""

MAX_OUTPUT_TOKENS = 2048

_CITED_CHARACTERS = 4000


async def judge_report(
    model: Model, rubric: Rubric, known: str, report: str, *, repeats: int = REPEATS, known_name: str = ""
) -> Judgement:
    """Ask a model about one report, each time with a new number around the texts.

    A provider that fails for good counts as a judge that failed.
    """
    answers: list[tuple[Verdict, str] | Failure] = []
    named = {"known_name": known_name} if known_name else {}
    for _ in range(repeats):
        nonce = new_nonce()
        asked = UserMessage(question(known, report, nonce, **named))
        try:
            turn = await model.generate(rubric.text, [asked], [], max_output_tokens=MAX_OUTPUT_TOKENS)
        except ModelError:
            answers.append("judge_failed")
            continue
        if turn.stop == "refusal":
            answers.append("refused_judge")
        else:
            answers.append(read_verdict(turn.text, nonce) or "judge_failed")
    return combine(answers)


async def judge_run(model: Model, session: Session, truth: Truth | None, *, repeats: int = REPEATS) -> dict[str, Any]:
    """Judge the report of a run, beside its scores.

    Where the truth is known, the report is compared with it; else with the results that its claims cite.

    Raises:
        UsageError: the target is an organism of Marple's own, whose answers are scored without a judge.
    """
    if session.case.organism is not None:
        raise UsageError(
            f"{session.case.id} has a machine-readable truth and is scored by it; a judge is for reports on real "
            "organisms and on models of your own: leave out --judge"
        )
    answer = answer_of(session)
    assert answer is not None
    report = report_text(answer.model_dump())
    if truth is None:
        rubric, known, name = load_rubric("open-question"), _cited(session), "The results that the report cites"
    else:
        rubric, known, name = load_rubric("default"), _told(truth), ""
    judged = await judge_report(model, rubric, known, report, repeats=repeats, known_name=name)
    by = {"model": model.name, "rubric": rubric.name, "rubric_version": rubric.version, "repeats": repeats}
    return {**by, "outcome": outcome(judged.failure or "submitted"), **judged.to_dict()}


async def validate(model: Model, reports: Sequence[LabelledReport], *, repeats: int = REPEATS) -> dict[str, Any]:
    """Let a model judge labelled reports; returns `agreement` and, under ``reports``, each judgement."""
    rubric = load_rubric("default")
    judged = [await judge_report(model, rubric, one.known, one.report, repeats=repeats) for one in reports]
    rows = [{"id": a.id, "label": a.label, **b.to_dict()} for a, b in zip(reports, judged, strict=True)]
    found = agreement([one.label for one in reports], judged)
    return {"model": model.name, "rubric": rubric.name, "rubric_version": rubric.version, **found, "reports": rows}


def _told(truth: Truth) -> str:
    """The truth in words."""
    if truth.nothing_hidden:
        return "Nothing is hidden in this model."
    slots = [f"{name}: {' or '.join((slot.value, *slot.aliases))}" for name, slot in truth.slots.items()]
    return "Hidden in this model:\n" + "\n".join(slots)


def _cited(session: Session) -> str:
    """The calls that the claims cite, as their results say."""
    answer = answer_of(session)
    cited = {evidence for claim in (answer.claims if answer else ()) for evidence in claim.evidence}
    parts = [
        f"{event.id}: {event.payload['tool']} {json.dumps(event.payload['arguments'])[:_CITED_CHARACTERS]}\n"
        f"{event.payload['text'][:_CITED_CHARACTERS]}"
        for event in session.measurements()
        if event.id in cited
    ]
    return "\n\n".join(parts) or "(nothing is cited)"
