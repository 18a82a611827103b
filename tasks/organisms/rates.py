"""Print what was measured on organisms with a planted behaviour: ``python -m marple.tasks.organisms.rates [ID ...]``.

Reads records only; a member that is neither shipped nor built has no row. It says what is hidden.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from marple.tasks.organisms.cache import read_record
from marple.tasks.organisms.places import entry_folder, recipe_hash, shipped_adapter
from marple.tasks.organisms.planted import Planted
from marple.tasks.organisms.recipes import Organism, recipes

__all__ = ["planted_rows"]


def planted_rows(names: Sequence[str] = ()) -> list[dict[str, str]]:
    """One row a member: its rates over all measurement seeds (mean and range), least capability, CPU seconds."""
    rows = []
    for organism in sorted(recipes().values(), key=lambda o: (o.kind, o.family, o.role == "clean", o.id)):
        if isinstance(organism.quirk, Planted) and (not names or organism.id in names):
            rows += _row(organism)
    return rows


def _row(organism: Organism) -> list[dict[str, str]]:
    digest = recipe_hash(organism)
    records = [read_record(place) or {} for place in (shipped_adapter(organism), entry_folder(organism, digest))]
    record = next((record for record in records if record.get("recipe_hash") == digest), None)
    if record is None:
        return []
    checks = record.get("checks") or [record["rates"]]
    slots = ", ".join(f"{name} {value}" for name, value in organism.quirk.model_dump(exclude={"aliases"}).items())
    row = {"id": organism.id, "kind": organism.kind, "member": organism.role, "quirk": slots}
    for group, prefix in (("rates", ""), ("other", "other: "), ("above_base", "above the base: ")):
        for name in checks[0].get(group, {}):
            row[f"{prefix}{name}"] = _spread([check[group][name] for check in checks])
    row["least capability"] = f"{min(min(check['capability'].values()) for check in checks):.2f}"
    row["CPU s"] = f"{record.get('training_cpu_seconds') or record.get('cpu_seconds') or 0:.0f}"
    return [row]


def _spread(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{sum(values) / len(values):.2f}" + (f" ({low:.2f}-{high:.2f})" if high - low >= 0.005 else "")


if __name__ == "__main__":
    for found in planted_rows(sys.argv[1:]):
        print(
            "; ".join(
                f"{key} {value}" if key not in ("id", "kind", "member") else value for key, value in found.items()
            )
        )
