"""The members that an ensemble is asked to have."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from marple.errors import UnknownNameError, UsageError
from marple.tasks.budget import Budget

__all__ = ["DEFAULT_MEMBERS", "MEMBER_INVESTIGATORS", "MOST_MEMBERS", "members_in", "members_of", "members_said"]

DEFAULT_MEMBERS, MOST_MEMBERS = 5, 64
"""Members of an ensemble."""

MEMBER_INVESTIGATORS = ("llm", "prior", "scripted-blackbox", "scripted-whitebox")


def members_of(
    investigator: str, members: int | None, who: str | None, limits: Budget, budget: str | None, model: str | None
) -> dict[str, Any]:
    """Fields of ``RunConfig`` for the members of an ensemble; none for another investigator.

    Raises:
        UsageError: another investigator has members, or there cannot be so many or such ones.
    """
    if investigator != "ensemble":
        given = {"members": members, "member-investigator": who, "member-budget": budget}
        if extra := [name for name, value in given.items() if value is not None]:
            raise UsageError(f"--{extra[0]} is for --investigator ensemble; {investigator} has no members")
        return {}
    count = DEFAULT_MEMBERS if members is None else members
    if not 1 <= count <= MOST_MEMBERS:
        raise UsageError(f"members {count} must be from 1 to {MOST_MEMBERS}; for example --members {DEFAULT_MEMBERS}")
    who = who or ("llm" if model else "scripted-whitebox")
    if who not in MEMBER_INVESTIGATORS:
        raise UnknownNameError("member investigator", who, MEMBER_INVESTIGATORS)
    if who == "llm" and model is None:
        raise UsageError("members that are llm need a model, for example --model openai-chat/NAME --base-url URL")
    return {"members": count, "member_investigator": who, "member_budget": limits.with_text(budget) if budget else None}


def members_said(count: int, who: str, *, own: Budget, each: Budget) -> dict[str, Any]:
    """The ``ensemble`` of ``run.json``, with the limits of all runs together; empty without members."""
    if not count:
        return {}
    total = {name: _sum(getattr(own, name), getattr(each, name), count) for name in Budget.names()}
    said = {"members": count, "member_investigator": who}
    return {"ensemble": {**said, "member_budget": asdict(each), "total_budget": total}}


def members_in(spec: Mapping[str, Any]) -> dict[str, Any]:
    """The same fields from ``run.json``."""
    said = spec.get("ensemble")
    if not said:
        return {}
    budget = Budget(**said["member_budget"])
    return {"members": said["members"], "member_investigator": said["member_investigator"], "member_budget": budget}


def _sum(own: float | None, each: float | None, count: int) -> float | None:
    return None if own is None or each is None else own + count * each
