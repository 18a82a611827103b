"""What a run is asked to do, as typed by a person and as kept in ``run.json``."""

from __future__ import annotations

import platform
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Self

from marple.agent.approval import open_approver
from marple.agent.investigator import Investigator
from marple.agent.models import PRICES_VARIABLE, load_prices
from marple.errors import CorruptTraceError, TargetRefusedError, UsageError
from marple.sandboxes import choose_backend
from marple.tasks.budget import Budget
from marple.tasks.case import Case, case_for_target, find_case
from marple.tools.target.checkpoint import check_target_dir, find_target

__all__ = ["DEFAULT_RUNS", "RunConfig", "check_beside"]

DEFAULT_RUNS = Path("runs")
"""Where run folders go unless told otherwise, relative to the working directory."""

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

    @classmethod
    def of(
        cls,
        *,
        case: str | None = None,
        target: str | None = None,
        reference: str | None = None,
        investigator: str,
        budget: str | None = None,
        saes: Sequence[Path] = (),
        corpus: Path | None = None,
        **options: Any,
    ) -> Self:
        """A configuration from names.

        Raises:
            UsageError: neither or both of ``case`` and ``target`` are given, or a name, limit or file is unknown.
            TargetRefusedError: the target or its reference cannot be loaded safely.
            SandboxUnavailableError: the isolation backend does not work on this machine.
        """
        if (case is None) == (target is None):
            raise UsageError("say what to examine: a case such as hidden-goal/nano-01, or --target PATH_OR_ID")
        if case is not None and reference is not None:
            raise UsageError(f"the case {case} brings its own reference; leave out --reference {reference}")
        found = find_case(case) if case is not None else _own_case(str(target), reference)
        check_beside(saes, corpus)
        open_approver(options.get("approval", "auto"))
        choose_backend(options.get("sandbox", "auto"))
        limits = found.budget.with_text(budget)
        model = options.get("model")
        if limits.cost is not None and model is not None and model not in load_prices(None):
            raise UsageError(f"budget cost={limits.cost} needs the price of {model}: list it in {PRICES_VARIABLE}")
        return cls(found, investigator, limits, saes=tuple(saes), corpus=corpus, **options)

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
            "target": self.case.target,
            "reference": self.case.reference,
            "affordances": list(self.case.affordances),
            "investigator": investigator.name,
            "model": investigator.model_name,
            "base_url": self.base_url,
            "effort": self.effort,
            "prompt_sha256": getattr(investigator, "prompt_sha256", None),
            "seed": self.seed,
            "budget": asdict(self.budget),
            "approval": self.approval,
            "sandbox": self.sandbox,
            "isolation": dict(choose_backend(self.sandbox).status.stamp),
            "saes": [str(path.resolve()) for path in self.saes],
            "corpus": None if self.corpus is None else str(self.corpus.resolve()),
            "versions": _versions(),
        }

    @classmethod
    def from_spec(cls, spec: Mapping[str, Any], *, runs: Path) -> Self:
        """The configuration a run folder was made with.

        Raises:
            CorruptTraceError: ``run.json`` lacks something.
            UnknownNameError: the case is gone since.
        """
        try:
            target = spec["target"]
            case = find_case(spec["case"]) if target is None else case_for_target(target, reference=spec["reference"])
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
            )
        except (KeyError, TypeError) as error:
            raise CorruptTraceError(f"run.json cannot be resumed: {error!r} is missing or wrong") from error


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


def _own_case(target: str, reference: str | None) -> Case:
    """A case on a user's model; the reference of an adapter is the model it was trained on unless another is named."""
    checkpoint = check_target_dir(find_target(target))
    if reference is None and checkpoint.kind == "adapter":
        if not checkpoint.base:
            raise TargetRefusedError(f"the adapter {target!r} names no base model; name it with --reference")
        reference = checkpoint.base
    if reference is not None:
        check_target_dir(find_target(reference))
    return case_for_target(target, reference=reference)


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "marple": version("marple")}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions
