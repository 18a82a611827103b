"""Cases: a kind of task on one target, with what the investigator may use."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import resources
from typing import Any

import yaml

from marple.errors import UnknownNameError
from marple.tasks.budget import Budget
from marple.tasks.kind import BriefFacts, Kind, find_kind

__all__ = ["Case", "case_for_target", "find_case", "list_cases"]

_UNKNOWN_WORLD = (
    "Nothing is known about this model besides what your tools show. Find out first what it can talk about. The answer "
    "is not known either: no score will be computed, and a person reads your report."
)


@dataclass(frozen=True)
class Case:
    """One case; its id says nothing about the answer."""

    id: str
    kind: Kind
    suites: tuple[str, ...]
    affordances: tuple[str, ...]
    budget: Budget
    organism: str | None = None
    """Id of the organism, or None for a user's own target."""
    target: str | None = None
    """Directory or hub id of a user's own target."""
    reference: str | None = None
    """Directory or hub id of its reference, when there is one."""

    @property
    def has_reference(self) -> bool:
        """Whether experiments can be compared with a reference model."""
        return self.organism is not None or self.reference is not None

    def brief(self) -> str:
        """The brief as the investigator sees it."""
        if self.organism is None:
            return self.kind.brief(BriefFacts(self.id, _UNKNOWN_WORLD, self.has_reference))
        from marple.tasks.organisms import find_organism
        from marple.tasks.organisms.world import public_description

        given = self.kind.given(find_organism(self.organism))
        return self.kind.brief(BriefFacts(self.id, public_description(), self.has_reference, given))


def case_for_target(target: str, *, reference: str | None = None, kind: str = "hidden-goal") -> Case:
    """A case on a user's own model; it has no truth and its id does not repeat the model's name."""
    found = find_kind(kind)
    return Case(
        f"{kind}/own-target",
        found,
        ("own",),
        found.affordances,
        found.budget,
        target=target,
        reference=reference,
    )


def list_cases(suite: str | None = None) -> list[Case]:
    """All cases, or those of one suite, in the order of their ids.

    Cases of recipes that the user added (``MARPLE_RECIPES``) are in suite ``user``.

    Raises:
        UnknownNameError: for an unknown suite.
    """
    cases = _all_cases()
    if suite is None:
        return cases
    suites = {name for case in cases for name in case.suites} | {"user"}
    if suite not in suites:
        raise UnknownNameError("suite", suite, suites)
    return [case for case in cases if suite in case.suites]


def find_case(case_id: str) -> Case:
    """The case with this id.

    Raises:
        UnknownNameError: when there is none.
    """
    cases = {case.id: case for case in _all_cases()}
    if case_id not in cases:
        raise UnknownNameError("case", case_id, cases, hint="List them with: marple tasks")
    return cases[case_id]


def _all_cases() -> list[Case]:
    cases: dict[str, Case] = {}
    for suite, entries in _suites().items():
        for entry in entries:
            case = _case(entry, suite)
            known = cases.get(case.id)
            cases[case.id] = replace(case, suites=(*known.suites, suite) if known else (suite,))
    for entry in _user_entries(known={case.organism for case in cases.values()}):
        case = _case(entry, "user")
        cases[case.id] = case
    return sorted(cases.values(), key=lambda case: case.id)


def _case(entry: Mapping[str, Any], suite: str) -> Case:
    kind = find_kind(entry["kind"])
    return Case(
        id=f"{kind.name}/{entry['organism']}",
        kind=kind,
        suites=(suite,),
        affordances=tuple(entry.get("affordances", kind.affordances)),
        budget=kind.budget.overridden(entry.get("budget", {})),
        organism=entry["organism"],
    )


@functools.cache
def _suites() -> dict[str, list[dict[str, Any]]]:
    folder = resources.files("marple.tasks").joinpath("suites")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return {f.name.removesuffix(".yaml"): yaml.safe_load(f.read_text(encoding="utf-8"))["cases"] for f in files}


def _user_entries(known: set[str | None]) -> list[dict[str, Any]]:
    from marple.tasks.organisms import list_organisms

    return [{"kind": o.kind, "organism": o.id} for o in list_organisms() if o.id not in known and not o.packaged]
