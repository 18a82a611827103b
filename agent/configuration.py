"""What a run is asked to do, as typed by a person and as kept in ``run.json``."""

from __future__ import annotations

import functools
import platform
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from marple.agent.affordances import check_left, offered_tools
from marple.agent.approval import open_approver
from marple.agent.case_choice import case_of, check_models, file_or_case, own_case, target_of
from marple.agent.efforts import effort_of
from marple.agent.ensemble_options import (
    DEFAULT_MEMBERS,
    MEMBER_INVESTIGATORS,
    MOST_MEMBERS,
    members_in,
    members_of,
    members_said,
)
from marple.agent.investigator import Investigator
from marple.agent.members import member_seed
from marple.agent.models import PRICES_VARIABLE, load_prices
from marple.agent.models.windows import context_window
from marple.agent.plugins import named_plugins, tools_of
from marple.agent.prompt_files import prompt_versions
from marple.agent.prompt_writing import open_writer
from marple.errors import CorruptTraceError, UsageError
from marple.sandboxes import choose_backend
from marple.sandboxes.plugins import Plugin
from marple.tasks.budget import Budget
from marple.tasks.case import Case
from marple.tasks.endpoints import endpoints_of

__all__ = ["DEFAULT_MEMBERS", "DEFAULT_RUNS", "MEMBER_INVESTIGATORS", "MOST_MEMBERS", "RunConfig", "check_beside"]

DEFAULT_RUNS = Path("runs")
"""Where run folders go unless told otherwise, relative to the working directory."""

LEAST_WINDOW = 4096
"""Smallest window that can be said, in tokens."""

_PACKAGES = ("torch", "transformers", "peft", "langgraph", "openai", "anthropic")


@dataclass(frozen=True)
class RunConfig:
    """One run, ready to be launched."""

    case: Case
    investigator: str
    budget: Budget
    model: str | None = None
    base_url: str | None = None
    effort: str | None = None
    seed: int = 0
    runs: Path = DEFAULT_RUNS
    approval: str = "auto"
    """``auto``, ``ask``, or the path of a policy file."""
    sandbox: str = "auto"
    """Name of an isolation backend, or ``auto``."""
    saes: tuple[Path, ...] = ()
    """Directories with a sparse autoencoder of the target each."""
    corpus: Path | None = None
    """A JSONL file of transcripts for the tools that search them."""
    plugins: tuple[Plugin, ...] = ()
    """Tool files of the user's own."""
    without: tuple[str, ...] = ()
    """Tools, or families of tools, that are not offered."""
    only: str | None = None
    """The highest rung of tools that is offered, or the one family; None for all that the case has."""

    context_tokens: int | None = None
    """Tokens that the investigator's window holds; None takes what is known of its model's family."""
    auxiliary: str | None = None
    """Model that writes prompts for `battery`, as provider/name; None has them written from everyday questions."""
    auxiliary_base_url: str | None = None
    """Address of its API; None is the provider's own."""

    members: int = 0
    """Runs of an ensemble that are played before its synthesiser begins; 0 for every other investigator."""
    member_investigator: str = ""
    """Who plays the members."""
    member_budget: Budget | None = None
    """Of each member; None is that of the synthesiser."""

    @property
    def played(self) -> Case:
        """The case with the tools that this run offers."""
        own = tools_of(self.plugins)
        tools = offered_tools(self.case.affordances, without=self.without, only=self.only, plugins=own)
        return replace(self.case, affordances=tuple(tools))

    @classmethod
    def of(
        cls,
        *,
        case: str | None = None,
        target: str | None = None,
        reference: str | None = None,
        target_base_url: str | None = None,
        reference_base_url: str | None = None,
        question: str | None = None,
        investigator: str,
        budget: str | None = None,
        saes: Sequence[Path] = (),
        corpus: Path | None = None,
        plugins: Sequence[Path] = (),
        without: Sequence[str] = (),
        only: str | None = None,
        members: int | None = None,
        member_investigator: str | None = None,
        member_budget: str | None = None,
        **options: Any,
    ) -> Self:
        """A configuration from names; tool files are those in ``MARPLE_PLUGINS`` too.

        Raises:
            UsageError: neither or both of ``case`` and ``target`` are given, or a name, limit or file is unknown.
            TargetRefusedError: the target or its reference cannot be loaded safely.
            SandboxUnavailableError: the isolation backend does not work on this machine.
        """
        if (case is None) == (target is None):
            raise UsageError("say what to examine: a case such as hidden-goal/nano-01, or --target PATH_OR_ID")
        given = {"reference": reference, "target-base-url": target_base_url, "question": question}
        if case is not None and (extra := [name for name, value in given.items() if value is not None]):
            raise UsageError(f"the case {case} brings its own; leave out --{extra[0]} {given[extra[0]]}")
        if case is not None:
            found = file_or_case(case)
        else:
            urls = {"target_url": target_base_url, "reference_url": reference_base_url}
            found = own_case(str(target), reference, endpoints_of(str(target), reference, **urls), question or "")
        check_models(found, saes=bool(saes))
        check_beside(saes, corpus)
        own = named_plugins(plugins, endpoint=found.endpoints is not None)
        check_left(found.affordances, case=found.id, without=without, only=only, plugins=tools_of(own))
        open_approver(options.get("approval", "auto"))
        if found.endpoints is None:
            choose_backend(options.get("sandbox", "auto"))
        limits = found.budget.with_text(budget)
        ends = found.endpoints
        _check_options(options)
        paid = (
            options.get("model"),
            options.get("auxiliary"),
            *((ends.target, ends.reference) if ends is not None else ()),
        )
        unknown = [one for one in paid if limits.cost is not None and one is not None and one not in load_prices(None)]
        if unknown:
            raise UsageError(f"budget cost={limits.cost} needs the price of {unknown[0]}: list it in {PRICES_VARIABLE}")
        beside: dict[str, Any] = {"saes": tuple(saes), "corpus": corpus, "plugins": own}
        beside |= members_of(investigator, members, member_investigator, limits, member_budget, options.get("model"))
        return cls(found, investigator, limits, without=tuple(without), only=only, **beside, **options)

    def new_run_id(self) -> str:
        """A fresh id that sorts by time and tells the case: ``20261120-214205-hidden-goal-nano-01-3f9a``."""
        moment = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
        return f"{moment}-{self.case.id.replace('/', '-')}-{secrets.token_hex(2)}"

    def spec(self, investigator: Investigator) -> dict[str, Any]:
        """The content of ``run.json``; no ground truth and no key is in it."""
        return {
            "case": self.case.id,
            "kind": self.case.kind.name,
            "comparability": self.case.kind.comparability,
            **target_of(self.case),
            "affordances": list(self.played.affordances),
            "without": list(self.without),
            "only": self.only,
            "investigator": investigator.name,
            "model": investigator.model_name,
            "base_url": self.base_url,
            "effort": self.effort,
            "prompt_sha256": getattr(investigator, "prompt_sha256", None),
            "prompts": prompt_versions() if self.model or self.auxiliary else {},
            "context_tokens": self.window(investigator.model_name),
            "auxiliary": self.auxiliary,
            "auxiliary_base_url": self.auxiliary_base_url,
            **members_said(
                self.members, self.member_investigator, own=self.budget, each=self.member_budget or self.budget
            ),
            "seed": self.seed,
            "budget": asdict(self.budget),
            "approval": self.approval,
            "sandbox": self.sandbox,
            "isolation": {} if self.case.endpoints else dict(choose_backend(self.sandbox).status.stamp),
            "saes": [str(path.resolve()) for path in self.saes],
            "corpus": None if self.corpus is None else str(self.corpus.resolve()),
            "plugins": [plugin.to_dict() for plugin in self.plugins],
            "versions": dict(_versions()),
        }

    def member(self, number: int) -> Self:
        """The configuration of one member of this ensemble."""
        return replace(
            self,
            investigator=self.member_investigator,
            budget=self.member_budget or self.budget,
            model=self.model if self.member_investigator == "llm" else None,
            seed=member_seed(self.seed, number),
            members=0,
            member_investigator="",
            member_budget=None,
        )

    def window(self, model: str | None) -> int | None:
        """Tokens that the window of this run's investigator holds; None for one without a model."""
        return None if model is None else self.context_tokens or context_window(model)

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], *, runs: Path) -> Self:
        """The configuration a run folder was made with.

        Raises:
            CorruptTraceError: ``run.json`` lacks something.
            UnknownNameError: the case is gone since.
        """
        try:
            case = case_of(spec)
            return cls(
                case=case,
                investigator=spec["investigator"],
                budget=Budget(**spec["budget"]),
                model=spec["model"],
                base_url=spec["base_url"],
                effort=spec["effort"],
                seed=spec["seed"],
                runs=runs,
                approval=spec["approval"],
                sandbox=spec["sandbox"],
                saes=tuple(map(Path, spec.get("saes", ()))),
                corpus=Path(spec["corpus"]) if spec.get("corpus") else None,
                plugins=tuple(map(Plugin.from_dict, spec.get("plugins", ()))),
                without=tuple(spec.get("without", ())),
                only=spec.get("only"),
                context_tokens=spec.get("context_tokens"),
                **members_in(spec),
                auxiliary=spec.get("auxiliary"),
                auxiliary_base_url=spec.get("auxiliary_base_url"),
            )
        except (KeyError, TypeError) as error:
            raise CorruptTraceError(f"run.json cannot be resumed: {error!r} is missing or wrong") from error


def _check_options(options: Mapping[str, Any]) -> None:
    """Refuse options that mean nothing, before a run folder is made."""
    effort_of(options.get("effort"), "investigator")
    tokens = options.get("context_tokens")
    if tokens is not None and tokens < LEAST_WINDOW:
        raise UsageError(f"context-tokens {tokens} is too small; the brief and the tools alone need {LEAST_WINDOW}")
    if options.get("auxiliary_base_url") and not options.get("auxiliary"):
        raise UsageError("auxiliary-base-url is the address of an auxiliary model; name it with --auxiliary")
    if options.get("auxiliary"):
        open_writer(options["auxiliary"], base_url=options.get("auxiliary_base_url"), effort=options.get("effort"))


def check_beside(saes: Sequence[Path], corpus: Path | None) -> None:
    """Refuse what is not there, before anything is built or started.

    Raises:
        UsageError: a directory of an autoencoder or the corpus does not exist.
    """
    for path in saes:
        if not path.is_dir():
            raise UsageError(f"there is no directory {str(path)!r} with a sparse autoencoder")
    if corpus is not None and not corpus.is_file():
        raise UsageError(f"there is no corpus {str(corpus)!r}: it is a JSONL file with one transcript a line")


@functools.cache
def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "marple": version("marple")}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
