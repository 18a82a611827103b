"""What organisms there are, without building any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from marple.tasks.organisms.cache import read_record
from marple.tasks.organisms.places import entry_folder, recipe_hash, shipped_adapter
from marple.tasks.organisms.recipes import Organism, recipes

__all__ = ["OrganismInfo", "list_organisms"]


@dataclass(frozen=True)
class OrganismInfo:
    """One line of the catalogue. ``role`` and ``family`` are part of the truth."""

    id: str
    kind: str
    role: str
    family: str
    source: Path
    shipped: bool
    """An adapter for exactly this recipe comes with the package."""
    cached: bool
    """A built checkpoint lies in the cache (its digests are checked when it is used)."""
    bytes: int
    """Size of the built checkpoint, or of the shipped adapter, or 0."""


def list_organisms(extra: Sequence[Path] = ()) -> list[OrganismInfo]:
    """Every organism that can be built, in the order of their ids."""
    return [_info(organism) for organism in recipes(extra).values()]


def _info(organism: Organism) -> OrganismInfo:
    digest = recipe_hash(organism)
    folder, adapter = entry_folder(organism, digest), shipped_adapter(organism)
    record = read_record(folder) or {}
    cached = record.get("recipe_hash") == digest
    shipped = (read_record(adapter) or {}).get("recipe_hash") == digest
    place = folder / "model" if cached else adapter
    size = sum(f.stat().st_size for f in place.glob("*.safetensors")) if cached or shipped else 0
    return OrganismInfo(
        organism.id, organism.kind, organism.role, organism.family, organism.source, shipped, cached, size
    )
