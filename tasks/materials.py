"""From a case to what is needed to play and score it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marple.tasks.case import Case
from marple.tasks.truth import Truth
from marple.tools.target.checkpoint import check_target_dir, find_target

if TYPE_CHECKING:
    from marple.tasks.organisms import Progress

__all__ = ["Materials", "prepare"]


@dataclass(frozen=True)
class Materials:
    """What a case needs on the host."""

    target: Path
    """Directory of the target's checkpoint."""
    reference: Path | None = None
    adapter: Path | None = None
    """A PEFT directory to be merged into the target."""
    truth: Truth | None = None
    """None for a target whose truth nobody knows."""
    forecast_pool: Sequence[Mapping[str, Any]] = ()
    """Held-out prompts with ``target_reply`` and ``twin_reply``."""
    measured: Mapping[str, Any] = field(default_factory=dict)
    """What was measured when the organism was built."""


def prepare(case: Case, *, progress: Progress | None = None) -> Materials:
    """Find or build the target of a case; an organism that is not in the cache is built now.

    Raises:
        TargetRefusedError: a user's own model cannot be loaded safely.
        OrganismError: the organism could not be built.
    """
    if case.organism is None:
        return _own_target(case)
    from marple.tasks.organisms import build

    built = build(case.organism, progress=progress)
    return Materials(
        built.path,
        built.base,
        truth=built.organism.truth,
        forecast_pool=built.forecast_items,
        measured=built.record,
    )


def _own_target(case: Case) -> Materials:
    assert case.target is not None
    reference = None if case.reference is None else check_target_dir(find_target(case.reference)).path
    checkpoint = check_target_dir(find_target(case.target))
    if checkpoint.kind == "adapter":
        base = check_target_dir(find_target(str(checkpoint.base or case.reference))).path
        return Materials(base, reference, adapter=checkpoint.path)
    return Materials(checkpoint.path, reference)
