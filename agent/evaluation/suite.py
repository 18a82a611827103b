"""Suites: which cases are played, by whom, how often; a suite of the catalogue by name, or a YAML file.

::

    suite: nano                        # or cases: [hidden-goal/nano-03, my-case.yaml]
    select: [hidden-goal/*]            # of the suite
    arms: [prior, scripted-blackbox]
    epochs: 3
    run_budget: {calls: 40}            # of each run
    budget: {cost: 5, seconds: 3600}   # of the whole evaluation
    criteria:
      stop: five epochs are played, or the budget is used up
      success: balanced accuracy of mine is above that of scripted-blackbox, and the interval excludes 0
"""

from __future__ import annotations

import fnmatch
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marple.agent.evaluation.arms import Arm, arms_in, budget_in
from marple.agent.evaluation.totals import TotalBudget
from marple.errors import UnknownNameError, UsageError
from marple.tasks.case import Case, find_case, list_cases
from marple.tasks.case_files import read_cases
from marple.tasks.located import Located, read_located

__all__ = ["CRITERIA_KEYS", "SUITE_KEYS", "Suite", "open_suite"]

SUITE_KEYS = ("suite", "select", "cases", "arms", "epochs", "first_seed", "run_budget", "budget", "criteria")
CRITERIA_KEYS = ("stop", "success")
_MOST_EPOCHS = 10_000


@dataclass(frozen=True)
class Suite:
    """What is to be evaluated on; arms and epochs are None where only the command line can say them."""

    name: str
    cases: Sequence[Case]
    arms: Sequence[Arm] | None = None
    epochs: int | None = None
    first_seed: int = 1
    """Seed of the first epoch; the others follow."""
    run_budget: Mapping[str, Any] = field(default_factory=dict)
    """Limits of each run that differ from those of its case."""
    budget: TotalBudget = TotalBudget()
    criteria: Mapping[str, str] = field(default_factory=dict)
    """When to stop and what counts as success, in the words of the file."""
    file: str | None = None
    file_sha256: str | None = None
    """Of the file's bytes."""


def open_suite(name: str) -> Suite:
    """The suite with this name, or of this file; a file with nothing but cases is a suite too.

    Raises:
        UsageError: there is none, it has no cases, or the file has a mistake; the message has its line.
    """
    path = Path(name)
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return _read(path)
    if path.is_dir():
        raise UsageError(f"the suite {name!r} is a folder; name a YAML file, or a suite of the catalogue: nano, open")
    return Suite(name, _of_suite(name))


def _of_suite(name: str) -> list[Case]:
    try:
        cases = list_cases(name)
    except UnknownNameError as error:
        raise UnknownNameError("suite", name, error.allowed, hint="A suite of your own is a YAML file.") from error
    if not cases:
        raise UsageError(f"the suite {name} has no cases; set MARPLE_CASES to your case files, or name a suite file")
    return cases


def _read(path: Path) -> Suite:
    root = read_located(path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    known: dict[str, Any] = {"name": path.stem, "file": str(path.resolve()), "file_sha256": digest}
    if _is_case_file(root):
        return Suite(cases=read_cases(path, suite="user"), **known)
    keys = root.mapping("the suite", SUITE_KEYS)
    if ("suite" in keys) == ("cases" in keys):
        root.fail("a suite file has `suite` (the name of one) or `cases` (a list of ids and case files)")
    cases = _cases_of_suite(keys) if "suite" in keys else _cases_of_list(keys, path.parent)
    said: dict[str, Any] = {}
    if "arms" in keys:
        said["arms"] = arms_in(keys["arms"])
    if "epochs" in keys:
        said["epochs"] = _number(keys["epochs"], "epochs", 1, _MOST_EPOCHS)
    if "first_seed" in keys:
        said["first_seed"] = _number(keys["first_seed"], "first_seed", 0, 2**31 - 1 - _MOST_EPOCHS)
    if "run_budget" in keys:
        said["run_budget"] = budget_in(keys["run_budget"])
    if "budget" in keys:
        said["budget"] = _total(keys["budget"])
    if "criteria" in keys:
        criteria = keys["criteria"].mapping("criteria", CRITERIA_KEYS)
        said["criteria"] = {key: one.text(key) for key, one in criteria.items()}
    return Suite(cases=cases, **said, **known)


def _is_case_file(root: Located) -> bool:
    """Whether a file has the cases themselves and not the names of some."""
    if not isinstance(root.value, dict):
        return False
    cases = root.value.get("cases")
    several = isinstance(cases, list) and any(isinstance(one, dict) for one in cases)
    return "kind" in root.value or "truths" in root.value or several


def _cases_of_suite(keys: Mapping[str, Located]) -> list[Case]:
    try:
        cases = _of_suite(keys["suite"].text("suite"))
    except UsageError as error:
        keys["suite"].fail(str(error))
    if "select" not in keys:
        return cases
    chosen: set[str] = set()
    for one in keys["select"].items("select"):
        pattern = one.text("a pattern of case ids")
        fitting = {case.id for case in cases if fnmatch.fnmatchcase(case.id, pattern)}
        if not fitting:
            one.fail(f"no case of the suite fits {pattern!r}; its cases are such as {_some(case.id for case in cases)}")
        chosen |= fitting
    return [case for case in cases if case.id in chosen]


def _cases_of_list(keys: Mapping[str, Located], folder: Path) -> list[Case]:
    if "select" in keys:
        keys["select"].fail(
            "`select` chooses of a `suite`; with `cases` leave out of the list what is not to be played"
        )
    found: dict[str, Case] = {}
    for one in keys["cases"].items("cases"):
        name = one.text("a case")
        try:
            is_file = name.endswith((".yaml", ".yml"))
            cases = read_cases((folder / name).resolve(), suite="user") if is_file else [find_case(name)]
        except UsageError as error:
            one.fail(str(error))
        for case in cases:
            if case.id in found:
                one.fail(f"the case {case.id} is there twice; repetitions are `epochs`")
            found[case.id] = case
    return list(found.values())


def _number(said: Located, name: str, least: int, most: int) -> int:
    value = said.value
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        said.fail(f"{name} is {value!r:.60}; valid: a whole number from {least} to {most}")
    return value


def _total(said: Located) -> TotalBudget:
    limits = {key: one.value for key, one in said.mapping("budget", TotalBudget.names()).items()}
    try:
        return TotalBudget.of(limits)
    except UsageError as error:
        said.fail(f"budget: {error}")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (", ..." if len(listed) > 3 else "")
