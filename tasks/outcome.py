"""How a run ended, as a closed set, so that a failure never looks like an answer."""

from __future__ import annotations

from typing import Literal, get_args

__all__ = ["Ending", "Outcome", "is_scored", "outcome"]

Ending = Literal[
    "submitted",
    "limit",
    "refused_investigator",
    "refused_judge",
    "judge_failed",
    "target_never_called",
    "worker_died",
    "target_unreachable",
    "invalid",
    "error",
    "cancelled",
]

Outcome = str
"""An ``Ending``; ``limit`` and ``invalid`` carry a reason: ``limit:turns``, ``invalid:no_answer``."""

_WITH_REASON = ("limit", "invalid")


def outcome(ending: Ending, reason: str = "") -> Outcome:
    """The status string of an ending; ``limit`` and ``invalid`` need a reason, the others take none."""
    if ending not in get_args(Ending):
        raise ValueError(f"{ending!r} is not one of {get_args(Ending)}")
    if (ending in _WITH_REASON) != bool(reason):
        raise ValueError(f"{ending!r} {'needs' if not reason else 'takes no'} reason")
    return f"{ending}:{reason}" if reason else ending


def is_scored(status: Outcome, *, answered: bool) -> bool:
    """Whether a run with this status counts as scored: it has an answer and the answer is the investigator's own."""
    return answered and (status == "submitted" or status.startswith("limit:"))
