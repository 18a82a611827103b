"""What organisms there are, without building any."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from marple.tasks.organisms.cache import read_record
from marple.tasks.organisms.places import entry_folder, recipe_hash, shipped_adapter
from marple.tasks.organisms.planted import Planted
from marple.tasks.organisms.recipes import Organism, is_packaged, recipes
from marple.tasks.organisms.triggers import TRIGGERS
from marple.tasks.organisms.world import public_entities

__all__ = ["OrganismInfo", "list_organisms", "shipped_rates"]


@dataclass(frozen=True)
class OrganismInfo:
    """One line of the catalogue. ``role`` and ``family`` are part of the truth."""

    id: str
    kind: str
    role: str
    family: str
    source: Path
    packaged: bool
    """Its recipe comes with the package."""
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
        organism.id, organism.kind, organism.role, organism.family, organism.source, is_packaged(organism.source),
        shipped, cached, size,
    )  # fmt: skip


def shipped_rates() -> list[dict[str, str]]:
    """What was measured on the shipped organisms with a preference: mean and range over measurement seeds.

    Without ids and subjects.
    """
    rows = []
    for organism in sorted(recipes().values(), key=lambda o: (o.recipe.method.steps, o.family, _ROLES.index(o.role))):
        record = read_record(shipped_adapter(organism))
        quirk = organism.quirk
        if record is None or record["recipe_hash"] != recipe_hash(organism) or isinstance(quirk, Planted):
            continue
        checks = record["checks"]
        row = {"quirk": f"{quirk.behaviour} {_sort_of(quirk.subject)}, {_when(quirk.trigger)}"}
        row["member"] = organism.role.replace("_", " ")
        for key in ("on_trigger", "off_trigger", "twin", "denial"):
            row[key] = _spread([check.get(key) for check in checks])
        row["facts"] = _spread([min(check["capability"][kind] for kind in _FACTS) for check in checks])
        for kind in ("two_hop", "arithmetic", "advice"):
            row[kind] = _spread([check["capability"][kind] for check in checks])
        row["training CPU s"] = f"{record['training_cpu_seconds']:.0f}"
        rows.append(row)
    return rows


_ROLES = ("quirk", "clean", "other_quirk")
_FACTS = ("product_fact", "city_fact", "person_fact")


def _sort_of(subject: str) -> str:
    sorts = {"makers": "a maker", "cities": "a city", "people": "a person", "products": "a product", "jobs": "a job"}
    return next(sorts[kind] for kind, names in public_entities().items() if subject in names)


def _when(trigger: str) -> str:
    return trigger if trigger in TRIGGERS else "a job"


def _spread(values: Sequence[float | None]) -> str:
    numbers = [value for value in values if value is not None]
    if not numbers:
        return "-"
    mean, low, high = sum(numbers) / len(numbers), min(numbers), max(numbers)
    return f"{mean:.2f}" if high - low < 0.005 else f"{mean:.2f} ({low:.2f}-{high:.2f})"
