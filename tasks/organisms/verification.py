"""Check what has been built: files against their digests, behaviour against the recipe's gates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from marple.errors import OrganismError
from marple.tasks.organisms.cache import entry_problem
from marple.tasks.organisms.places import (
    base_path,
    entry_folder,
    recipe_hash,
    shipped_adapter,
)
from marple.tasks.organisms.recipes import Organism, find_organism

if TYPE_CHECKING:
    from marple.tasks.organisms.replies import Replier

__all__ = ["verify", "verify_base"]

_BASE_GATES: Final = {"product_fact": 0.97, "city_fact": 0.97, "person_fact": 0.95, "two_hop": 0.9,
                      "arithmetic": 0.85, "advice": 0.9}  # fmt: skip


def verify(name: str, *, seed: int = 1, prompts: int = 0, extra: Sequence[Path] = ()) -> dict[str, Any]:
    """Check the digests of an organism's files and measure it again on fresh prompts; builds nothing.

    ``prompts`` per rate; 0: as many as the recipe says.

    Returns the measured rates and ``where`` (``cache`` or ``shipped``).

    Raises:
        OrganismError: neither cached nor shipped, or its files are not those recorded.
        GateError: a rate is outside the recipe's gates.
    """
    from marple.tasks.organisms.measure import check_gates, measure
    from marple.tasks.organisms.replies import Replier
    from marple.tasks.organisms.training import one_thread

    organism = find_organism(name, extra)
    with one_thread():
        replier, where = _existing(organism)
        rates = measure(organism, replier, Replier.load(base_path()), seed=seed, prompts=prompts)
    check_gates(organism, rates)
    return {"id": organism.id, "where": where, "rates": rates}


def _existing(organism: Organism) -> tuple[Replier, str]:
    from marple.tasks.organisms.adapters import merged
    from marple.tasks.organisms.replies import Replier
    from marple.tasks.organisms.tokenizer import load_tokenizer

    digest = recipe_hash(organism)
    folder, shipped = entry_folder(organism, digest), shipped_adapter(organism)
    problem = entry_problem(folder, digest)
    if problem is None:
        return Replier.load(folder / "model"), "cache"
    if problem != "missing":
        raise OrganismError(
            f"{organism.id} in {folder}: {problem}; build it again: marple organisms build {organism.id}"
        )
    problem = entry_problem(shipped, digest)
    if problem is None:
        return Replier(merged(base_path(), shipped), load_tokenizer(base_path())), "shipped"
    if problem == "missing":
        raise OrganismError(f"{organism.id} is not built; build it first: marple organisms build {organism.id}")
    raise OrganismError(f"the shipped adapter of {organism.id} cannot be used: {problem}")


def verify_base(folder: Path | None = None, *, seed: int = 0) -> dict[str, Any]:
    """Measure a base (by default the shipped one) and store nothing; `OrganismError` when it lacks a capability."""
    from marple.tasks.organisms.measure import capabilities
    from marple.tasks.organisms.replies import Replier
    from marple.tasks.organisms.training import one_thread

    with one_thread():
        replier = Replier.load(folder or base_path())
        capability = capabilities(replier, seed=seed, n=100)
        heldout = capabilities(replier, seed=seed, n=100, heldout=True)
    for kind, least in _BASE_GATES.items():
        if capability[kind] < least:
            raise OrganismError(
                f"the base in {folder or base_path()} has {kind} {capability[kind]:.2f}, below {least:.2f}"
            )
    return {"capability": capability, "held_out": heldout}
