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

from marple.tasks.organisms.cache import (
    RECORD,
    cache_root,
    entry_problem,
    file_digests,
    install,
    locked,
    read_record,
)
from marple.tasks.organisms.places import (
    CODE_VERSION,
    base_path,
    entry_folder,
    recipe_hash,
    shipped_adapter,
)
from marple.tasks.organisms.progress import Progress, Silent
from marple.tasks.organisms.recipes import Organism, find_organism

if TYPE_CHECKING:
    from marple.tasks.organisms.replies import Replier

__all__ = ["Built", "build", "build_base"]

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
    folder = entry_folder(organism, digest)
    with locked(folder.name):
        usable = not force and entry_problem(folder, digest) is None
        if usable and from_scratch and (read_record(folder) or {}).get("adapter") != "trained":
            usable = False
        if not usable:
            from marple.tasks.organisms.training import one_thread

            with one_thread():
                _make(organism, digest, folder, progress=progress, from_scratch=from_scratch, force=force)
        return _load(organism, folder)


def _load(organism: Organism, folder: Path) -> Built:
    record = dict(read_record(folder) or {})
    items = record.pop("forecast_items", [])
    return Built(organism, folder / "model", base_path(), record, items)


def _make(
    organism: Organism, digest: str, folder: Path, *, progress: Progress, from_scratch: bool, force: bool
) -> None:
    from marple.tasks.organisms.adapters import merged
    from marple.tasks.organisms.checkpoints import save_model
    from marple.tasks.organisms.measure import check_gates, measure
    from marple.tasks.organisms.replies import Replier
    from marple.tasks.organisms.tokenizer import load_tokenizer

    started = time.process_time()
    adapter, origin = _adapter(organism, digest, progress=progress, from_scratch=from_scratch, force=force)
    model, tokenizer = merged(base_path(), adapter), load_tokenizer(base_path())

    def write(temporary: Path) -> None:
        target = temporary / "model"
        save_model(model, target)
        for name in _COPIED:
            shutil.copyfile(base_path() / name, target / name)
        shutil.copytree(adapter, temporary / "adapter", ignore=shutil.ignore_patterns("record.json"))

    progress.stage(f"{organism.id}: measuring", 2)
    record: dict[str, Any] = {"recipe_hash": digest, "id": organism.id, "role": organism.role, "adapter": origin}
    install(folder, {**record, "unfinished": True, "recipe_hash": ""}, write)
    replier = Replier(model, tokenizer)
    record["rates"] = measure(organism, replier, Replier.load(base_path()))
    check_gates(organism, record["rates"])
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


def _adapter(
    organism: Organism, digest: str, *, progress: Progress, from_scratch: bool, force: bool
) -> tuple[Path, str]:
    shipped = shipped_adapter(organism)
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
            from marple.tasks.organisms.verification import verify_base

            record |= verify_base(folder)
            install_record(folder, record)
            shutil.rmtree(work, ignore_errors=True)
        return folder, dict(read_record(folder) or {})


def _base_recipe_hash() -> str:
    from marple.tasks.organisms.base import BaseRecipe
    from marple.tasks.organisms.world import world_digest

    text = f"{BaseRecipe()} {world_digest()} {CODE_VERSION}"
    return hashlib.sha256(text.encode()).hexdigest()
