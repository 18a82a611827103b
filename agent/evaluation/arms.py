"""Arms: who plays, under which configuration; read from a YAML file or named on a command line.

::

    - prior
    - {name: opus, investigator: llm, model: anthropic/NAME, effort: high, budget: {turns: 20}}
    - {name: opus-no-sae, investigator: llm, model: anthropic/NAME, without: [sae]}
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from marple.agent.affordances import check_choice
from marple.agent.configuration import DEFAULT_MEMBERS, MEMBER_INVESTIGATORS, MOST_MEMBERS
from marple.agent.investigators import load_investigators
from marple.errors import UnknownNameError, UsageError
from marple.tasks.budget import Budget
from marple.tasks.located import Located, read_located

__all__ = ["ARM_KEYS", "CONTROLS", "Arm", "arms_in", "named_arms", "read_arms", "with_controls"]

_TEXTS = ("model", "base_url", "effort", "auxiliary", "auxiliary_base_url", "member_investigator")
ARM_KEYS = ("name", "investigator", *_TEXTS, "members", "without", "only", "cases", "budget")

CONTROLS = ("prior", "scripted-blackbox")
"""The arms that an arm with a language model is never shown without."""

_PLAYED_BY_OTHERS = {
    "human": "a person plays it: marple run CASE --investigator human",
    "mcp": "an outside agent plays it: marple serve-mcp CASE",
    "shell": "somebody outside plays it: marple play",
}
"""Investigators that no evaluation can play by itself, and who does."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True)
class Arm:
    """An investigator under one configuration; plain data."""

    name: str
    investigator: str
    model: str | None = None
    base_url: str | None = None
    effort: str | None = None
    without: tuple[str, ...] = ()
    """Tools or families of tools that are not offered."""
    only: str | None = None
    """The highest rung, or the one family, that is offered."""
    budget: Mapping[str, Any] = field(default_factory=dict)
    """Limits of one run that differ from the suite's and the case's."""
    auxiliary: str | None = None
    """Model that writes prompts for ``battery``."""
    auxiliary_base_url: str | None = None
    members: int | None = None
    """Of an ensemble."""
    member_investigator: str | None = None
    """Who plays the members of an ensemble."""
    cases: tuple[str, ...] = ()
    """Patterns of the cases that it plays, such as ``secret/*``; none for all."""

    def plays(self, case: str) -> bool:
        """Whether a case is one of the arm's."""
        return not self.cases or any(fnmatch.fnmatchcase(case, pattern) for pattern in self.cases)

    @property
    def needs_model(self) -> bool:
        """Whether a language model plays."""
        return self.model is not None

    @property
    def configuration(self) -> dict[str, Any]:
        """What makes a run of this arm what it is, beside its limits; what is not said is left out."""
        return {key: one for key, one in self.to_dict().items() if one and key not in ("name", "budget", "cases")}

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        chosen = {"cases": list(self.cases)} if self.cases else {}
        own = {key: one for key, one in asdict(self).items() if key != "cases"}
        return {**own, "without": list(self.without), "budget": dict(self.budget), **chosen}

    @classmethod
    def from_dict(cls, said: Mapping[str, Any]) -> Self:
        """The arm that `to_dict` made these of."""
        return cls(**{**said, "without": tuple(said["without"]), "cases": tuple(said.get("cases", ()))})


def named_arms(text: str) -> list[Arm]:
    """The arms of a comma list of investigators, such as ``prior,scripted-blackbox``.

    Raises:
        UsageError: one is unknown, there twice, or needs a model, which only a file of arms can name.
    """
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise UsageError(f"--arms {text!r} names no arm; for example --arms prior,scripted-blackbox, or a YAML file")
    entries = load_investigators()
    for name in names:
        if name not in entries:
            raise UnknownNameError("arm", name, _playable(), hint="A YAML file of arms is named by its path.")
        if name in _PLAYED_BY_OTHERS:
            raise UsageError(f"{name} cannot be an arm: {_PLAYED_BY_OTHERS[name]}")
        if entries[name].needs_model:
            raise UsageError(
                f"the arm {name} needs a model, which a comma list cannot name: write a file of arms with "
                f"`- {{name: my-model, investigator: {name}, model: anthropic/NAME}}` and give --arms FILE"
            )
        if names.count(name) > 1:
            raise UsageError(f"the arm {name} is there twice; repetitions are epochs: --epochs 2")
    return [Arm(name, name, members=DEFAULT_MEMBERS if name == "ensemble" else None) for name in names]


def read_arms(file: Path) -> list[Arm]:
    """The arms of a YAML file: a list, or a mapping with ``arms``.

    Raises:
        UsageError: the file has a mistake; the message has its line and what is allowed.
    """
    root = read_located(file)
    if isinstance(root.value, dict):
        keys = root.mapping("the file", ("arms",))
        if "arms" not in keys:
            root.fail("the file has no `arms`: a list of arms")
        root = keys["arms"]
    return arms_in(root)


def arms_in(said: Located) -> list[Arm]:
    """The arms of a list in a file."""
    if not isinstance(said.value, list):
        said.fail("arms are a list: `- prior`, `- {name: mine, investigator: llm, model: provider/NAME}`")
    found: dict[str, Arm] = {}
    for entry in said.items("arms"):
        arm = _arm(entry)
        if arm.name in found:
            entry.fail(f"the arm {arm.name} is there twice; give one of them another `name`")
        same = next((one for one in found.values() if replace(one, name=arm.name) == arm), None)
        if same is not None:
            entry.fail(f"the arms {same.name} and {arm.name} differ in nothing but their name")
        found[arm.name] = arm
    return list(found.values())


def with_controls(arms: Sequence[Arm]) -> list[Arm]:
    """The arms, and where a language model plays the control arms that are missing among them, first."""
    if not any(arm.needs_model for arm in arms):
        return list(arms)
    played, names = {arm.investigator for arm in arms}, {arm.name for arm in arms}
    missing = [name for name in CONTROLS if name not in played and name not in names]
    return [*(Arm(name, name) for name in missing), *arms]


def _arm(entry: Located) -> Arm:
    if isinstance(entry.value, str):
        members = DEFAULT_MEMBERS if entry.value == "ensemble" else None
        arm = Arm(entry.value, _investigator(entry), members=members)
    else:
        keys = entry.mapping("an arm", ARM_KEYS)
        if "investigator" not in keys:
            entry.fail(f"an arm needs an `investigator` (valid: {', '.join(_playable())})")
        texts: dict[str, Any] = {key: keys[key].text(key) for key in _TEXTS if key in keys}
        investigator = _investigator(keys["investigator"])
        name = keys["name"].text("name") if "name" in keys else investigator
        budget = budget_in(keys["budget"]) if "budget" in keys else {}
        members = _members(keys) if investigator == "ensemble" else None
        cases = tuple(one.text("a case") for one in keys["cases"].items("cases")) if "cases" in keys else ()
        arm = Arm(name, investigator, **texts, **_tools(keys), budget=budget, members=members, cases=cases)
        if not _NAME.fullmatch(name):
            keys["name"].fail(f"the name {name!r} must be letters, digits, '.', '_' and '-', at most 64")
    _check_model(entry, arm)
    return arm


def _check_model(entry: Located, arm: Arm) -> None:
    needs = load_investigators()[arm.investigator].needs_model
    if needs is True and arm.model is None:
        entry.fail(f"the investigator {arm.investigator} needs a `model`, for example openai-chat/NAME")
    spoken = [key for key in ("model", "base_url", "effort") if getattr(arm, key) is not None]
    if needs is False and spoken:
        entry.fail(f"the investigator {arm.investigator} uses no language model; leave out `{spoken[0]}`", spoken[0])
    of_members = [
        key for key in ("members", "member_investigator") if isinstance(entry.value, dict) and key in entry.value
    ]
    if arm.investigator != "ensemble" and of_members:
        entry.fail(f"the investigator {arm.investigator} has no members; leave out `{of_members[0]}`", of_members[0])
    if arm.member_investigator not in (None, *MEMBER_INVESTIGATORS):
        unknown = UnknownNameError("member investigator", str(arm.member_investigator), MEMBER_INVESTIGATORS)
        entry.fail(str(unknown), "member_investigator")
    if arm.member_investigator == "llm" and arm.model is None:
        entry.fail("members that are llm need a `model`, for example openai-chat/NAME", "member_investigator")


def _members(keys: Mapping[str, Located]) -> int:
    if "members" not in keys:
        return DEFAULT_MEMBERS
    count = keys["members"].value
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= MOST_MEMBERS:
        keys["members"].fail(f"members is {count!r:.60}; valid: a whole number from 1 to {MOST_MEMBERS}")
    return count


def _investigator(said: Located) -> str:
    name = said.text("an investigator")
    if name not in load_investigators():
        said.fail(str(UnknownNameError("investigator", name, _playable())))
    if name in _PLAYED_BY_OTHERS:
        said.fail(f"{name} cannot be an arm: {_PLAYED_BY_OTHERS[name]}")
    return name


def _playable() -> list[str]:
    """The investigators that an arm can have."""
    return [name for name in load_investigators() if name not in _PLAYED_BY_OTHERS]


def _tools(keys: Mapping[str, Located]) -> dict[str, Any]:
    without = tuple(one.text("a tool") for one in keys["without"].items("without")) if "without" in keys else ()
    only = None
    if "only" in keys:
        # A rung is a number, which YAML reads as one.
        number = isinstance(keys["only"].value, int) and not isinstance(keys["only"].value, bool)
        only = str(keys["only"].value) if number else keys["only"].text("only")
    try:
        check_choice(without, only)
    except UnknownNameError as error:
        keys["only" if error.what.startswith("rung") else "without"].fail(str(error))
    return {"without": without, "only": only}


def budget_in(said: Located) -> dict[str, Any]:
    """The limits of one run as a mapping in a file.

    Raises:
        UsageError: one is unknown or no number above 0; the message has its line.
    """
    limits = {key: one.value for key, one in said.mapping("budget", Budget.names()).items()}
    try:
        changed = Budget().overridden(limits)
    except UsageError as error:
        said.fail(f"budget: {error}")
    return {key: getattr(changed, key) for key in limits}
