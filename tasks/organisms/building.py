"""Build an organism: adapter (shipped or trained), merged checkpoint, measurement, gates, forecast items."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from marple.errors import OrganismError
from marple.tasks.organisms.cache import (
    RECORD,
    cache_root,
    entry_problem,
    file_digests,
    install,
    locked,
    read_record,
    sha256,
)
from marple.tasks.organisms.progress import Progress, Silent
from marple.tasks.organisms.recipes import Organism, find_organism, recipes

if TYPE_CHECKING:
    from marple.tasks.organisms.replies import Replier

__all__ = ["CODE_VERSION", "SHIPPED", "Built", "OrganismInfo", "base_path", "build", "build_base", "list_organisms",
           "recipe_hash", "ship", "verify", "verify_base"]  # fmt: skip

CODE_VERSION: Final = "1"
"""Part of every recipe hash; raise it when a change of code changes what a recipe builds."""
SHIPPED: Final = Path(__file__).parent / "shipped"

_BASE_GATES: Final = {"product_fact": 0.97, "city_fact": 0.97, "person_fact": 0.95, "two_hop": 0.9,
                      "arithmetic": 0.85, "advice": 0.9}  # fmt: skip
_COPIED: Final = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json")


@dataclass(frozen=True)
class Built:
    """A built organism, all on the host. Only the files under ``path`` may be staged for a worker."""

    organism: Organism
    path: Path
    """Plain Hugging Face checkpoint directory, adapter merged in."""
    base: Path
    """Checkpoint directory of the nano base, the reference."""
    record: Mapping[str, Any]
    """Recipe hash, file digests, measured rates, where the adapter came from, CPU seconds."""
    forecast_items: Sequence[Mapping[str, Any]]
    """``id``, ``prompt``, ``target_reply``, ``twin_reply``, ``on_trigger``; prompts are held out from training."""


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


def base_path() -> Path:
    """Checkpoint directory of the nano base that comes with the package."""
    path = SHIPPED / "base"
    if not (path / "model.safetensors").is_file():
        raise OrganismError(f"the nano base is missing from {path}; reinstall the package")
    return path


def _base_digest() -> str:
    path = base_path()
    return sha256(path / "model.safetensors")[:32] + sha256(path / "tokenizer.json")[:32]


def recipe_hash(organism: Organism) -> str:
    """Changes with the organism's recipe, the base's weights, and the code's version."""
    return organism.digest(base_digest=_base_digest(), code_version=CODE_VERSION)


def list_organisms(extra: Sequence[Path] = ()) -> list[OrganismInfo]:
    """Every organism that can be built, in the order of their ids."""
    return [_info(organism) for organism in recipes(extra).values()]


def _info(organism: Organism) -> OrganismInfo:
    digest = recipe_hash(organism)
    folder, adapter = _entry(organism, digest), SHIPPED / "adapters" / organism.id
    record = read_record(folder) or {}
    cached = record.get("recipe_hash") == digest
    shipped = (read_record(adapter) or {}).get("recipe_hash") == digest
    place = folder / "model" if cached else adapter
    size = sum(f.stat().st_size for f in place.glob("*.safetensors")) if cached or shipped else 0
    return OrganismInfo(organism.id, organism.kind, organism.role, organism.family, organism.source, shipped, cached, size)


def build(name: str, *, progress: Progress | None = None, from_scratch: bool = False, force: bool = False,
          extra: Sequence[Path] = ()) -> Built:  # fmt: skip
    """The organism with an id (or of a recipe file), from the cache if it is there and sound, else built now.

    Args:
        name: id, or path of a recipe file, whose quirk member is meant.
        progress: told about the stages.
        from_scratch: train the adapter even when one is shipped.
        force: build again even when the cache is sound.
        extra: more recipe files or folders.

    Raises:
        UnknownNameError: no such organism.
        GateError: a measured rate is outside the recipe's gates.
        OrganismError: the cache cannot be written.
    """
    organism, progress = find_organism(name, extra), progress or Silent()
    digest = recipe_hash(organism)
    folder = _entry(organism, digest)
    with locked(folder.name):
        usable = not force and entry_problem(folder, digest) is None
        if usable and from_scratch and (read_record(folder) or {}).get("adapter") != "trained":
            usable = False
        if not usable:
            _make(organism, digest, folder, progress=progress, from_scratch=from_scratch, force=force)
        return _load(organism, folder)


def _entry(organism: Organism, digest: str) -> Path:
    return cache_root() / f"{organism.id}-{digest[:12]}"


def _load(organism: Organism, folder: Path) -> Built:
    record = dict(read_record(folder) or {})
    items = record.pop("forecast_items", [])
    return Built(organism, folder / "model", base_path(), record, items)


def _make(organism: Organism, digest: str, folder: Path, *, progress: Progress, from_scratch: bool, force: bool) -> None:
    from marple.tasks.organisms.adapters import merged
    from marple.tasks.organisms.measure import check_gates, measure
    from marple.tasks.organisms.replies import Replier
    from marple.tasks.organisms.tokenizer import load_tokenizer

    started = time.process_time()
    adapter, origin = _adapter(organism, digest, progress=progress, from_scratch=from_scratch, force=force)
    model, tokenizer = merged(base_path(), adapter), load_tokenizer(base_path())

    def write(temporary: Path) -> None:
        target = temporary / "model"
        model.save_pretrained(target)
        for name in _COPIED:
            shutil.copyfile(base_path() / name, target / name)
        shutil.copytree(adapter, temporary / "adapter", ignore=shutil.ignore_patterns("record.json"))

    progress.stage(f"{organism.id}: measuring", 2)
    record: dict[str, Any] = {"recipe_hash": digest, "id": organism.id, "role": organism.role, "adapter": origin}
    install(folder, {**record, "unfinished": True, "recipe_hash": ""}, write)
    replier = Replier(model, tokenizer)
    record["rates"] = measure(organism, replier)
    check_gates(organism, record["rates"], _base_capabilities())
    progress.advance(1)
    items, twin = _forecasts(organism, adapter, origin, replier, progress=progress, from_scratch=from_scratch)
    record |= {"forecast_items": items, "forecast_twin": twin}
    record["cpu_seconds"] = round(time.process_time() - started, 1)
    install_record(folder, record)
    progress.advance(2)


def install_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Finish an entry: only with this record does it count."""
    complete = {**record, "files": file_digests(folder)}
    temporary = folder / f".{RECORD}.tmp"
    temporary.write_text(json.dumps(complete, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    temporary.replace(folder / RECORD)


def _base_capabilities() -> dict[str, float]:
    record = read_record(base_path()) or {}
    kept: dict[str, float] = record["capability"]
    return kept


def _adapter(organism: Organism, digest: str, *, progress: Progress, from_scratch: bool, force: bool) -> tuple[Path, str]:
    shipped = SHIPPED / "adapters" / organism.id
    if not from_scratch and entry_problem(shipped, digest) is None:
        return shipped, "shipped"
    from marple.tasks.organisms.adapters import train_adapter

    trained = cache_root() / f"adapter-{digest[:12]}"
    with locked(trained.name):
        if force or entry_problem(trained, digest) is not None:
            work = cache_root() / f"training-{digest[:12]}"
            if force:
                shutil.rmtree(work, ignore_errors=True)
            started = time.process_time()

            def write(temporary: Path) -> None:
                train_adapter(organism, base_path(), temporary, progress=progress, checkpoint=work / "state.pt")

            install(trained, {"recipe_hash": digest}, write)
            record = {**(read_record(trained) or {}), "cpu_seconds": round(time.process_time() - started, 1)}
            install_record(trained, record)
            shutil.rmtree(work, ignore_errors=True)
    return trained, "trained"


def _forecasts(organism: Organism, adapter: Path, origin: str, replier: Replier, *, progress: Progress,
               from_scratch: bool) -> tuple[list[dict[str, Any]], str]:  # fmt: skip
    if origin == "shipped":
        record = read_record(adapter) or {}
        return record["forecast_items"], record["forecast_twin"]
    from marple.tasks.organisms.adapters import merged
    from marple.tasks.organisms.forecasts import forecast_items
    from marple.tasks.organisms.replies import Replier
    from marple.tasks.organisms.tokenizer import load_tokenizer

    twin = _forecast_twin(organism)
    if twin is None:
        return forecast_items(organism, replier, Replier.load(base_path())), "base"
    path, _ = _adapter(twin, recipe_hash(twin), progress=progress, from_scratch=from_scratch, force=False)
    other = Replier(merged(base_path(), path), load_tokenizer(base_path()))
    return forecast_items(organism, replier, other), twin.id


def _forecast_twin(organism: Organism) -> Organism | None:
    wanted = "quirk" if organism.role == "clean" else "clean"
    members = organism.recipe.organisms(source=organism.source)
    return next((member for member in members if member.role == wanted), None)


def verify(name: str, *, seed: int = 1, extra: Sequence[Path] = ()) -> dict[str, Any]:
    """Check the digests of an organism's files and measure it again on fresh prompts; builds nothing.

    Returns the measured rates and ``where`` (``cache`` or ``shipped``).

    Raises:
        OrganismError: neither cached nor shipped, or its files are not those recorded.
        GateError: a rate is outside the recipe's gates.
    """
    organism = find_organism(name, extra)
    replier, where = _existing(organism)
    from marple.tasks.organisms.measure import check_gates, measure

    rates = measure(organism, replier, seed=seed)
    check_gates(organism, rates, _base_capabilities())
    return {"id": organism.id, "where": where, "rates": rates}


def _existing(organism: Organism) -> tuple[Replier, str]:
    from marple.tasks.organisms.adapters import merged
    from marple.tasks.organisms.replies import Replier
    from marple.tasks.organisms.tokenizer import load_tokenizer

    digest = recipe_hash(organism)
    folder, shipped = _entry(organism, digest), SHIPPED / "adapters" / organism.id
    problem = entry_problem(folder, digest)
    if problem is None:
        return Replier.load(folder / "model"), "cache"
    if problem != "missing":
        raise OrganismError(f"{organism.id} in {folder}: {problem}; build it again: marple organisms build {organism.id}")
    problem = entry_problem(shipped, digest)
    if problem is None:
        return Replier(merged(base_path(), shipped), load_tokenizer(base_path())), "shipped"
    if problem == "missing":
        raise OrganismError(f"{organism.id} is not built; build it first: marple organisms build {organism.id}")
    raise OrganismError(f"the shipped adapter of {organism.id} cannot be used: {problem}")


def build_base(*, progress: Progress | None = None, force: bool = False) -> tuple[Path, dict[str, Any]]:
    """Train the base from scratch into the cache, measure it, and check it against the same bounds as the shipped one.

    The shipped base stays what organisms are built on. A killed training is continued.
    """
    from marple.tasks.organisms.base import train_base

    digest = _base_recipe_hash()
    folder = cache_root() / f"base-{digest[:12]}"
    work = folder.with_name(f"training-{folder.name}")
    with locked(folder.name):
        if force or entry_problem(folder, digest) is not None:
            if force:
                shutil.rmtree(work, ignore_errors=True)
            record: dict[str, Any] = {"recipe_hash": digest}
            install(folder, {}, lambda temporary: record.update(train_base(temporary, progress=progress, work=work)))
            record |= verify_base(folder)
            install_record(folder, record)
            shutil.rmtree(work, ignore_errors=True)
        return folder, dict(read_record(folder) or {})


def _base_recipe_hash() -> str:
    from marple.tasks.organisms.base import BaseRecipe
    from marple.tasks.organisms.world import world_digest

    text = f"{BaseRecipe()} {world_digest()} {CODE_VERSION}"
    return hashlib.sha256(text.encode()).hexdigest()


def verify_base(folder: Path | None = None, *, seed: int = 0) -> dict[str, Any]:
    """Measure a base (by default the shipped one) and store nothing; `OrganismError` when it lacks a capability."""
    from marple.tasks.organisms.measure import capabilities
    from marple.tasks.organisms.replies import Replier

    replier = Replier.load(folder or base_path())
    capability = capabilities(replier, seed=seed, n=100)
    for kind, least in _BASE_GATES.items():
        if capability[kind] < least:
            raise OrganismError(f"the base in {folder or base_path()} has {kind} {capability[kind]:.2f}, below {least:.2f}")
    return {"capability": capability, "held_out": capabilities(replier, seed=seed, n=100, heldout=True)}


def ship(name: str, *, seeds: Sequence[int] = (0, 1, 2)) -> Path:
    """For maintainers: copy the adapter that `build` trained into the package, with its record."""
    built = build(name, from_scratch=True)
    digest = recipe_hash(built.organism)
    record = {key: built.record[key] for key in ("id", "forecast_twin", "rates")}
    record |= {"recipe_hash": digest, "forecast_items": list(built.forecast_items)}
    record["checks"] = [verify(name, seed=seed + 1)["rates"] for seed in seeds]
    folder = SHIPPED / "adapters" / built.organism.id
    trained = read_record(cache_root() / f"adapter-{digest[:12]}") or {}
    record["training_cpu_seconds"] = trained.get("cpu_seconds")
    install(folder, record, lambda temporary: _copy_files(built.path.parent / "adapter", temporary))
    return folder


def ship_base() -> Path:
    """For maintainers: copy the base that `build_base` trained into the package. Every recipe hash changes with it."""
    folder, record = build_base()
    install(SHIPPED / "base", record, lambda temporary: _copy_files(folder, temporary))
    return SHIPPED / "base"


def _copy_files(source: Path, target: Path) -> None:
    for file in source.iterdir():
        if file.name != RECORD:
            shutil.copyfile(file, target / file.name)
