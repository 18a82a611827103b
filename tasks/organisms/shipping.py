"""For maintainers: put what was trained here into the package."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from marple.tasks.organisms.building import build, build_base, install_record
from marple.tasks.organisms.cache import RECORD, cache_root, install, read_record
from marple.tasks.organisms.places import SHIPPED, recipe_hash, shipped_adapter
from marple.tasks.organisms.recipes import find_organism
from marple.tasks.organisms.verification import verify

__all__ = ["recheck", "ship", "ship_base"]


def ship(name: str, *, seeds: Sequence[int] = (1, 2, 3)) -> Path:
    """For maintainers: copy the adapter that `build` trained into the package, with its record."""
    built = build(name, from_scratch=True)
    digest = recipe_hash(built.organism)
    record = {key: built.record[key] for key in ("id", "forecast_twin", "rates")}
    record |= {"recipe_hash": digest, "forecast_items": list(built.forecast_items)}
    record["checks"] = [verify(name, seed=seed)["rates"] for seed in seeds]
    trained = read_record(cache_root() / f"adapter-{digest[:12]}") or {}
    record["training_cpu_seconds"] = trained.get("cpu_seconds")
    folder = shipped_adapter(built.organism)
    install(folder, record, lambda temporary: _copy_files(built.path.parent / "adapter", temporary))
    return folder


def recheck(name: str, *, seeds: Sequence[int] = (1, 2, 3)) -> None:
    """For maintainers: measure a shipped organism again and put the rates into its record."""
    checks = [verify(name, seed=seed)["rates"] for seed in seeds]
    folder = shipped_adapter(find_organism(name))
    install_record(folder, {**(read_record(folder) or {}), "checks": checks})


def ship_base() -> Path:
    """For maintainers: copy the base that `build_base` trained into the package. Every recipe hash changes with it."""
    folder, record = build_base()
    install(SHIPPED / "base", record, lambda temporary: _copy_files(folder, temporary))
    return SHIPPED / "base"


def _copy_files(source: Path, target: Path) -> None:
    for file in source.iterdir():
        if file.name != RECORD:
            shutil.copyfile(file, target / file.name)
