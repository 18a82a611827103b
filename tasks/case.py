"""Cases: a kind of task on one target, with what the investigator may use."""

from __future__ import annotations

import functools
import os
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path

from marple.errors import UnknownNameError, UsageError
from marple.tasks.budget import Budget
from marple.tasks.endpoints import Endpoints, endpoint_note, endpoint_tools
from marple.tasks.kind import BriefFacts, Kind, find_kind
from marple.tasks.sources import Source
from marple.tasks.truth import Truth

__all__ = [
    "CASES_VARIABLE",
    "Case",
    "case_for_target",
    "case_in_file",
    "find_case",
    "list_cases",
    "packaged_cases",
    "twin_of",
]

CASES_VARIABLE = "MARPLE_CASES"
"""Environment variable with case files of the user's, or folders of them, separated as in PATH."""

_UNKNOWN_WORLD = (
    "Nothing is known about this model besides what your tools show. Find out first what it can talk about."
)
_NO_SCORE = "The answer is not known either: no score will be computed, and a person reads your report."
_OWN_REFERENCE = "The reference is the model that the target is compared with."


@dataclass(frozen=True)
class Case:
    """One case; its id says nothing about the answer."""

    id: str
    kind: Kind
    suites: tuple[str, ...]
    affordances: tuple[str, ...]
    budget: Budget
    organism: str | None = None
    """Id of the organism, or None for any other target."""
    target: Source | None = None
    """A model that is no organism of the catalogue's; for an adapter, the model it is an adapter of."""
    adapters: tuple[Source, ...] = ()
    """Adapters of the target; the changes that several make to the weights are added up."""
    reference: Source | None = None
    """What the target is compared with, when there is something."""
    endpoints: Endpoints | None = None
    """The target, where it is an endpoint."""
    question: str = ""
    """What a user wants to know of a target of their own."""
    truth: Truth | None = None
    """The known answer for a target that is no organism of the catalogue's."""
    twin: str | None = None
    """Id of the case of a sibling with nothing hidden."""
    note: str = ""
    """What is publicly known of the whole family that the target is from; part of the brief."""
    saes: tuple[Source, ...] = ()
    """Autoencoders that were trained on the target's base; for a person, not loaded."""
    oracles: tuple[Source, ...] = ()
    """Models that were trained to put the base's activations into words; for a person, not loaded."""
    origin: str = ""
    """Where the truth was taken from; for a person, never shown to an investigator."""
    file: str | None = None
    """The user's file that the case was read from."""

    @property
    def has_reference(self) -> bool:
        """Whether experiments can be compared with a reference model."""
        endpoint = self.endpoints is not None and self.endpoints.reference is not None
        return self.organism is not None or self.reference is not None or endpoint

    def sources(self) -> dict[str, Source]:
        """The models of a case on no organism, by what they are in it; several adapters are numbered."""
        numbered = {f"adapter {n}": one for n, one in enumerate(self.adapters, start=1)}
        adapters = {"adapter": self.adapters[0]} if len(self.adapters) == 1 else numbered
        found = {"target": self.target, **adapters, "reference": self.reference}
        return {role: source for role, source in found.items() if source is not None}

    def brief(self) -> str:
        """The brief as the investigator sees it."""
        if self.organism is None:
            facts = BriefFacts(self.id, self._known(), self.has_reference, self.question, _OWN_REFERENCE)
            return self.kind.brief(facts)
        from marple.tasks.organisms import find_organism
        from marple.tasks.organisms.world import public_description

        given = self.kind.given(find_organism(self.organism))
        return self.kind.brief(BriefFacts(self.id, public_description(), self.has_reference, given))

    def _known(self) -> str:
        """What is told of a target that is no organism of the catalogue's."""
        first = _UNKNOWN_WORLD if self.truth is not None else f"{_UNKNOWN_WORLD} {_NO_SCORE}"
        parts = [first, self.note, endpoint_note(self.endpoints) if self.endpoints is not None else ""]
        return "\n\n".join(part for part in parts if part)


def case_for_target(
    target: str,
    *,
    reference: str | None = None,
    kind: str | None = None,
    question: str = "",
    endpoints: Endpoints | None = None,
) -> Case:
    """A case on a user's own model; it has no truth and its id does not repeat the model's name.

    Args:
        target: a directory or a hub id.
        reference: the same, or None.
        kind: None is ``open-question`` where there is a question, and otherwise ``hidden-goal``.
        question: what the user wants to know.
        endpoints: the target and its reference, where they are endpoints.
    """
    found = find_kind(kind or ("open-question" if question else "hidden-goal"))
    tools = found.affordances
    local = endpoints is None
    if endpoints is not None:
        tools = tuple(tool for tool in tools if tool in endpoint_tools(endpoints))
    return Case(
        f"{found.name}/own-target",
        found,
        ("own",),
        tools,
        found.budget,
        target=Source(target) if local else None,
        reference=Source(reference) if local and reference is not None else None,
        endpoints=endpoints,
        question=question,
    )


def list_cases(suite: str | None = None) -> list[Case]:
    """All cases, or those of one suite, in the order of their ids.

    Cases of the user's, from recipes (``MARPLE_RECIPES``) and case files (``MARPLE_CASES``), are in suite ``user``.

    Raises:
        UnknownNameError: for an unknown suite.
        UsageError: a case file has a mistake; the message has its line.
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
        UsageError: a case file has a mistake; the message has its line.
    """
    cases = {case.id: case for case in _all_cases()}
    if case_id not in cases:
        raise UnknownNameError("case", case_id, cases, hint="List them with: marple tasks")
    return cases[case_id]


def case_in_file(file: Path, case_id: str | None = None) -> Case:
    """The case of a user's file; of several, the one with this id.

    Raises:
        UsageError: the file has a mistake, has several cases and none is named, or lacks the one named.
    """
    from marple.tasks.case_files import read_cases

    cases = {case.id: case for case in read_cases(file, suite="user")}
    if case_id is None and len(cases) > 1:
        raise UsageError(
            f"{file} has {len(cases)} cases: set {CASES_VARIABLE}={file} and name one, such as {next(iter(cases))}"
        )
    if case_id is not None and case_id not in cases:
        raise UnknownNameError("case", case_id, cases, hint=f"in {file}")
    return next(iter(cases.values())) if case_id is None else cases[case_id]


def twin_of(case: Case) -> Case | None:
    """The case that a case names as its twin; for one with nothing hidden, the first that names it. None without."""
    if case.target is None and case.endpoints is None:
        return None
    from marple.tasks.case_files import read_cases

    among = read_cases(Path(case.file), suite="user") if case.file is not None else packaged_cases()
    if case.twin is not None:
        return next(one for one in among if one.id == f"{case.kind.name}/{case.twin}")
    name = case.id.partition("/")[2]
    return next((one for one in among if one.kind.name == case.kind.name and one.twin == name), None)


def _all_cases() -> list[Case]:
    cases: dict[str, Case] = {}
    for case in (*packaged_cases(), *_of_recipes(), *_of_files()):
        known = cases.get(case.id)
        if known is not None and "user" in case.suites:
            raise UsageError(f"{case.file or 'a recipe'}: the case {case.id} is there already; give it another id")
        cases[case.id] = replace(case, suites=(*known.suites, *case.suites) if known else case.suites)
    return sorted(cases.values(), key=lambda case: case.id)


@functools.cache
def packaged_cases() -> tuple[Case, ...]:
    """The cases of the suites that come with the package."""
    from marple.tasks.case_files import read_cases

    folder = resources.files("marple.tasks").joinpath("suites")
    files = sorted((f for f in folder.iterdir() if f.name.endswith(".yaml")), key=lambda f: f.name)
    return tuple(case for f in files for case in read_cases(f, suite=f.name.removesuffix(".yaml")))


def _of_recipes() -> list[Case]:
    from marple.tasks.organisms import list_organisms

    cases = []
    for organism in list_organisms():
        if not organism.packaged:
            kind = find_kind(organism.kind)
            case_id = f"{kind.name}/{organism.id}"
            cases.append(Case(case_id, kind, ("user",), kind.affordances, kind.budget, organism=organism.id))
    return cases


def _of_files() -> list[Case]:
    from marple.tasks.case_files import read_cases

    cases: list[Case] = []
    for part in filter(None, os.environ.get(CASES_VARIABLE, "").split(os.pathsep)):
        path = Path(part)
        if not path.exists():
            raise UsageError(f"{CASES_VARIABLE} names {part!r}, which does not exist")
        for file in sorted(path.glob("*.y*ml")) if path.is_dir() else [path]:
            cases += read_cases(file, suite="user")
    return cases
