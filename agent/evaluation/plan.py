"""The plan of an evaluation: the grid of arms, cases and epochs, in a document that is there before the first run."""

from __future__ import annotations

import fnmatch
import hashlib
import importlib.metadata
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import resources
from typing import Any, Self

from marple.agent.affordances import check_left
from marple.agent.evaluation.arms import Arm
from marple.agent.evaluation.samples import Sample, digest_of
from marple.agent.evaluation.suite import Suite
from marple.agent.plugins import tools_of
from marple.errors import CorruptTraceError, UsageError
from marple.sandboxes.plugins import Plugin
from marple.tasks.budget import Budget
from marple.tasks.case import Case

__all__ = ["SCHEMA_VERSION", "Plan", "PlannedCase"]

SCHEMA_VERSION = 1


@dataclass(frozen=True)
class PlannedCase:
    """A case as the plan keeps it: what names it, and a digest of all that it is."""

    id: str
    kind: str
    comparability: int | str
    organism: str
    """The organism, or the target for any other."""
    version: str
    """Changes with the recipe or the model, the truth, the brief's facts and the tools."""
    budget: Mapping[str, Any]
    file: str | None = None


@dataclass(frozen=True)
class Plan:
    """What is to be played. Two commands with the same plan fill the same folder."""

    suite: str
    arms: Sequence[Arm]
    cases: Sequence[PlannedCase]
    epochs: int
    first_seed: int = 1
    run_budget: Mapping[str, Any] = field(default_factory=dict)
    criteria: Mapping[str, str] = field(default_factory=dict)
    prompts: str = ""
    """Digest of the method that language models are given; empty where none plays."""
    suite_file: str | None = None
    suite_file_sha256: str | None = None
    plugins: tuple[Plugin, ...] = ()
    """Tool files of the user's own, which every run takes along."""

    @classmethod
    def of(cls, suite: Suite, arms: Sequence[Arm], epochs: int, *, plugins: Sequence[Plugin] = ()) -> Self:
        """The plan of a suite.

        Raises:
            UsageError: a number of epochs below 1, an arm without a tool on some case, or a pattern that fits no case.
        """
        if epochs < 1:
            raise UsageError(f"--epochs {epochs} plays nothing; it is a whole number from 1")
        _check_patterns(suite, arms)
        for case in suite.cases:
            for arm in (one for one in arms if one.plays(case.id)):
                own = tools_of(plugins)
                check_left(case.affordances, case=case.id, without=arm.without, only=arm.only, plugins=own)
        return cls(
            suite=suite.name,
            arms=tuple(arms),
            cases=tuple(map(_planned, suite.cases)),
            epochs=epochs,
            first_seed=suite.first_seed,
            run_budget=dict(suite.run_budget),
            criteria=dict(suite.criteria),
            prompts=_prompts() if any(arm.needs_model for arm in arms) else "",
            suite_file=suite.file,
            suite_file_sha256=suite.file_sha256,
            plugins=tuple(plugins),
        )

    def samples(self) -> list[Sample]:
        """Every cell of the grid, those on one target together."""
        order = {name: at for at, name in enumerate(dict.fromkeys(case.organism for case in self.cases))}
        cases = sorted(self.cases, key=lambda case: order[case.organism])
        return [
            self._sample(arm, case, epoch)
            for case in cases
            for epoch in range(1, self.epochs + 1)
            for arm in self.arms
            if arm.plays(case.id)
        ]

    def _sample(self, arm: Arm, case: PlannedCase, epoch: int) -> Sample:
        seed = self.first_seed + epoch - 1
        budget = asdict(Budget(**case.budget).overridden(self.run_budget).overridden(arm.budget))
        prompts = self.prompts if arm.needs_model else ""
        said = (case.comparability, case.version, case.id, epoch, seed, budget, arm.configuration, prompts)
        key = digest_of(*said, *self._files)
        place = (epoch, seed, case.organism, budget, case.version, case.file)
        return Sample(key, arm, case.id, case.kind, *place, plugins=self.plugins)

    @property
    def _files(self) -> list[list[str]]:
        """What the tool files are; nothing where there are none, as in plans from before there were any."""
        return [sorted(plugin.sha256 for plugin in self.plugins)] if self.plugins else []

    # ------------------------------------------------------------------------------ document

    def to_document(self) -> dict[str, Any]:
        """The content of ``evaluation.json``; what was promised beforehand is in it, with its digest."""
        return {
            "schema_version": SCHEMA_VERSION,
            "created": time.time(),
            "suite": self.suite,
            "suite_file": self.suite_file,
            "suite_file_sha256": self.suite_file_sha256,
            "criteria": dict(self.criteria),
            "criteria_sha256": _sha256(self.criteria),
            "epochs": self.epochs,
            "first_seed": self.first_seed,
            "run_budget": dict(self.run_budget),
            "arms": [arm.to_dict() for arm in self.arms],
            "cases": [asdict(case) for case in self.cases],
            "prompts": self.prompts,
            "plugins": [plugin.to_dict() for plugin in self.plugins],
            "plan_sha256": self.digest,
            "versions": {"marple": importlib.metadata.version("marple")},
        }

    @property
    def digest(self) -> str:
        """SHA-256 over all that the samples and the criteria follow from."""
        arms = [arm.to_dict() for arm in self.arms]
        cases = [asdict(case) for case in self.cases]
        said = (arms, cases, self.epochs, self.first_seed, self.run_budget, self.criteria, self.prompts)
        return _sha256([*(dict(one) if isinstance(one, Mapping) else one for one in said), *self._files])

    @classmethod
    def from_document(cls, said: Mapping[str, Any]) -> Self:
        """The plan that `to_document` wrote.

        Raises:
            CorruptTraceError: something is missing, wrong, or was changed since.
        """
        names = ("suite", "epochs", "first_seed", "run_budget", "criteria", "prompts", "suite_file")
        try:
            plan = cls(
                arms=tuple(Arm.from_dict(arm) for arm in said["arms"]),
                cases=tuple(PlannedCase(**case) for case in said["cases"]),
                suite_file_sha256=said["suite_file_sha256"],
                plugins=tuple(map(Plugin.from_dict, said.get("plugins", ()))),
                **{name: said[name] for name in names},
            )
            whole = plan.digest == said["plan_sha256"] and _sha256(plan.criteria) == said["criteria_sha256"]
        except (KeyError, TypeError, ValueError) as error:
            raise CorruptTraceError(f"evaluation.json cannot be read: {error!r} is missing or wrong") from error
        if not whole:
            raise CorruptTraceError("evaluation.json was changed since it was written: its digests do not fit")
        return plan

    def differences(self, before: Plan) -> list[str]:
        """What this plan has that an earlier one had otherwise, each in a few words."""
        found = [
            *_named("arm", {a.name: a.to_dict() for a in before.arms}, {a.name: a.to_dict() for a in self.arms}),
            *_named("case", {c.id: asdict(c) for c in before.cases}, {c.id: asdict(c) for c in self.cases}),
        ]
        for name in ("epochs", "first_seed", "run_budget", "criteria"):
            old, new = getattr(before, name), getattr(self, name)
            if old != new:
                found.append(f"{name} was {old!r:.120} and is {new!r:.120}")
        if self._files != before._files:
            found.append("the tool plugins are others (--plugin, MARPLE_PLUGINS)")
        if self.prompts != before.prompts and self.prompts and before.prompts:
            found.append("the method that language models are given (agent/prompts) is another")
        return found


def _named(what: str, old: Mapping[str, Mapping[str, Any]], new: Mapping[str, Mapping[str, Any]]) -> list[str]:
    found = [f"the {what} {name} is gone" for name in old if name not in new]
    found += [f"the {what} {name} is new" for name in new if name not in old]
    for name in old.keys() & new.keys():
        changed = [key for key in {**old[name], **new[name]} if old[name].get(key) != new[name].get(key)]
        found += [
            f"the {what} {name}: {key} was {old[name].get(key)!r:.80}, is {new[name].get(key)!r:.80}" for key in changed
        ]
    return found


def _check_patterns(suite: Suite, arms: Sequence[Arm]) -> None:
    names = [case.id for case in suite.cases]
    for arm in arms:
        for pattern in arm.cases:
            if not fnmatch.filter(names, pattern):
                kinds = ", ".join(dict.fromkeys(f"{case.kind.name}/*" for case in suite.cases))
                raise UsageError(
                    f"the arm {arm.name} plays {pattern!r}, which fits no case of {suite.name}; kinds: {kinds}"
                )


def _planned(case: Case) -> PlannedCase:
    truth = None if case.truth is None else case.truth.model_dump(mode="json")
    sources = [case.target, case.adapters, case.reference, case.endpoints, case.twin, case.question, case.note]
    version = digest_of(case.kind.name, list(case.affordances), _recipe(case), truth, [str(one) for one in sources])
    named = [str(one) for one in (case.target, *case.adapters) if one is not None]
    organism = case.organism or (case.endpoints.target if case.endpoints is not None else " + ".join(named))
    return PlannedCase(
        case.id, case.kind.name, case.kind.comparability, organism, version, asdict(case.budget), case.file
    )


def _recipe(case: Case) -> str | None:
    if case.organism is None:
        return None
    from marple.tasks.organisms import find_organism
    from marple.tasks.organisms.places import recipe_hash

    return recipe_hash(find_organism(case.organism))


def _prompts() -> str:
    folder = resources.files("marple.agent").joinpath("prompts")
    files = sorted((file for file in folder.iterdir() if file.is_file()), key=lambda file: file.name)
    return digest_of(*((file.name, file.read_text(encoding="utf-8")) for file in files))


def _sha256(value: Any) -> str:
    plain = dict(value) if isinstance(value, Mapping) else value
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
