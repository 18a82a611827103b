"""A sample: one arm on one case in one epoch. Plain data, so that it can be sent to another process or machine."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marple.agent.configuration import RunConfig
from marple.agent.evaluation.arms import Arm
from marple.sandboxes.plugins import Plugin
from marple.tasks.budget import Budget
from marple.tasks.case import Case, case_in_file, find_case

__all__ = ["Job", "Sample", "SampleEnd", "config_of", "digest_of"]


@dataclass(frozen=True)
class Sample:
    """One cell of the grid of arms, cases and epochs."""

    key: str
    """Changes with the task's version, the case, the epoch and its seed, and the arm's configuration and model."""
    arm: Arm
    case: str
    kind: str
    epoch: int
    """From 1."""
    seed: int
    """Of the epoch, the same for all arms, so that they can be compared in pairs."""
    organism: str
    """The organism, or the target for any other."""
    budget: Mapping[str, Any]
    """All limits of the run, as `Budget` has them."""
    version: str = ""
    """Of the case: changes with the recipe or the model, the truth, the brief's facts and the tools."""
    case_file: str | None = None
    """The user's file that has the case."""
    plugins: tuple[Plugin, ...] = ()
    """Tool files of the user's own."""

    @property
    def name(self) -> str:
        """What ``--only`` looks at: ``ARM/KIND/TARGET/EPOCH``."""
        return f"{self.arm.name}/{self.case}/{self.epoch}"


@dataclass(frozen=True)
class Job:
    """A sample that is to be played now, and where."""

    sample: Sample
    runs: str
    """Folder of run folders."""
    run_id: str
    """The run's folder in it; where it is there already, the run is gone on with."""


@dataclass(frozen=True)
class SampleEnd:
    """What became of a job."""

    key: str
    run_id: str
    status: str
    """An outcome of `marple.tasks.outcome`; ``interrupted`` for a run that was asked to stop."""
    finished: bool
    """Whether the run has a result; otherwise the same run is gone on with next time."""
    scored: bool = False
    error: str = ""
    """Why there is no score, in a few words."""
    usage: Mapping[str, Any] = field(default_factory=dict)
    """As in ``result.json``."""
    ends_arm: str = ""
    """Why no other sample of the arm can do better, such as a key that is refused."""
    ends_all: str = ""
    """Why no other sample at all can do better, such as a full disk."""


def config_of(job: Job) -> RunConfig:
    """The configuration of a job's run.

    Raises:
        UsageError: the case is gone.
    """
    sample, arm = job.sample, job.sample.arm
    case = _case(sample.case, sample.case_file, sample.version)
    return RunConfig(
        case,
        arm.investigator,
        Budget(**sample.budget),
        model=arm.model,
        base_url=arm.base_url,
        effort=arm.effort,
        seed=sample.seed,
        runs=Path(job.runs),
        plugins=sample.plugins if case.endpoints is None else (),
        without=arm.without,
        only=arm.only,
        auxiliary=arm.auxiliary,
        auxiliary_base_url=arm.auxiliary_base_url,
        members=arm.members or 0,
        member_investigator=_member(arm),
    )


def _member(arm: Arm) -> str:
    """Who plays the members of an ensemble; '' for every other investigator."""
    if arm.members is None:
        return ""
    return arm.member_investigator or ("llm" if arm.model else "scripted-whitebox")


@functools.lru_cache(maxsize=1024)
def _case(name: str, file: str | None, version: str) -> Case:
    """The case; as long as its version is the same, so is the case, and looking it up reads every recipe."""
    return find_case(name) if file is None else case_in_file(Path(file), name)


def digest_of(*values: Any) -> str:
    """The first 16 hexadecimal digits of SHA-256 over JSON values."""
    text = json.dumps(values, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]
