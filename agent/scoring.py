"""Scores from the events of a run and the truth: the one way, when a run ends and when it is scored again later."""

from __future__ import annotations

from typing import Any

from marple.agent.forecasting import forecast_scores
from marple.agent.marking import replication_scores
from marple.agent.session import Session
from marple.agent.trying import answer_of, measured_of
from marple.tasks.gap import gap
from marple.tasks.outcome import is_scored
from marple.tasks.truth import Truth

__all__ = ["scores_of"]


def scores_of(session: Session, truth: Truth | None, status: str) -> dict[str, Any]:
    """The scores of a frozen answer; nothing but the event log and the held-out items is read.

    Args:
        session: the run; its bench is not used.
        truth: the known answer, or None.
        status: how the run ended.

    Returns:
        ``scored``, and where it is: what the kind scores, the forecasts, and ``gap``; where the answer has claims and
        counts, their marks also without any truth.
    """
    answer = answer_of(session)
    if answer is None or not is_scored(status, answered=True):
        return {"scored": False}
    scores: dict[str, Any] = {"scored": False}
    if truth is not None:
        kind = session.case.kind
        own = kind.score(answer, truth, measured_of(session))
        scores = {"scored": True, **kind.with_forecasts({**own, **_forecasts(session)})}
        between = gap(session.folder.events(), truth)
        scores |= {} if between is None or not session.investigator.uses_target else {"gap": between}
    return scores | replication_scores(session)


def _forecasts(session: Session) -> dict[str, Any]:
    """The forecasts' scores, with the ``outcomes`` in the order that was asked, for a plot of their calibration."""
    outcomes: dict[str, list[Any]] = {
        "forecast": [item.target_is_a for item in session.forecast_items],
        "fires": [item.fired / item.replies for item in session.fire_items],
    }
    return {name: {**one, "outcomes": outcomes[name]} for name, one in forecast_scores(session).items()}
