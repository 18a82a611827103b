"""Which case a run is on: by its id, in a user's file, or made for a model of the user's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marple.agent.endpoint_bench import open_endpoint
from marple.errors import TargetRefusedError, UsageError
from marple.tasks.case import Case, case_for_target, case_in_file, find_case
from marple.tasks.endpoints import Endpoints
from marple.tasks.materials import prepare
from marple.tools.target.checkpoint import check_target_dir, find_target

__all__ = ["case_of", "check_models", "file_or_case", "own_case", "target_of"]


def file_or_case(name: str) -> Case:
    """The case in a user's file, or the one with this id."""
    if name.endswith((".yaml", ".yml")) or Path(name).is_file():
        return case_in_file(Path(name))
    return find_case(name)


def own_case(target: str, reference: str | None, endpoints: Endpoints | None, question: str) -> Case:
    """A case on a user's model; the reference of an adapter is the model it was trained on unless another is named."""
    if endpoints is None:
        checkpoint = check_target_dir(find_target(target))
        if reference is None and checkpoint.kind == "adapter":
            if not checkpoint.base:
                raise TargetRefusedError(f"the adapter {target!r} names no base model; name it with --reference")
            reference = checkpoint.base
        if reference is not None:
            check_target_dir(find_target(reference))
    return case_for_target(target, reference=reference, endpoints=endpoints, question=question)


def check_models(case: Case, *, saes: bool) -> None:
    """Refuse a target that is not there or cannot load, before a run folder is made; fetches what the hub has."""
    if case.endpoints is not None:
        if saes:
            raise UsageError("a target that is an endpoint takes no --sae: its weights are not here")
        open_endpoint(case.endpoints.target, case.endpoints.target_url)
        if case.endpoints.reference is not None:
            open_endpoint(case.endpoints.reference, case.endpoints.reference_url)
    elif case.target is not None:
        prepare(case)


def target_of(case: Case) -> dict[str, Any]:
    """What is examined, as far as the case's id does not say it. What a suite names stays out, for names can tell."""
    own = case.suites == ("own",)
    endpoints = case.endpoints if own else None
    names = {"target": case.target, "reference": case.reference}
    said: dict[str, Any] = {name: one.name if own and one else None for name, one in names.items()}
    if endpoints is not None:
        said |= {"target": endpoints.target, "reference": endpoints.reference, "endpoints": endpoints.to_dict()}
    return (
        said
        | ({"question": case.question} if own else {})
        | ({"case_file": str(Path(case.file).resolve())} if case.file else {})
    )


def case_of(spec: Mapping[str, Any]) -> Case:
    """The case that a run folder was made for."""
    if spec.get("case_file"):
        return case_in_file(Path(spec["case_file"]), spec["case"])
    if spec["target"] is None:
        return find_case(spec["case"])
    endpoints = Endpoints(**spec["endpoints"]) if spec.get("endpoints") else None
    question = spec.get("question", "")
    return case_for_target(spec["target"], reference=spec["reference"], endpoints=endpoints, question=question)
