"""Where the base, shipped adapters and cache entries lie, and the hash that says what they were made from."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Final

from marple.errors import OrganismError
from marple.tasks.organisms.cache import cache_root, sha256
from marple.tasks.organisms.recipes import Organism

__all__ = [
    "CODE_VERSION",
    "SHIPPED",
    "base_digest",
    "base_path",
    "base_saes",
    "entry_folder",
    "recipe_hash",
    "shipped_adapter",
]

CODE_VERSION: Final = "1"
"""Part of every recipe hash; raise it when a change of code changes what a recipe builds."""
SHIPPED: Final = Path(__file__).parent / "shipped"


def base_path() -> Path:
    """Checkpoint directory of the nano base that comes with the package."""
    path = SHIPPED / "base"
    if not (path / "model.safetensors").is_file():
        raise OrganismError(f"the nano base is missing from {path}; reinstall the package")
    return path


def base_saes() -> tuple[Path, ...]:
    """Directories of the sparse autoencoders of the nano base that come with the package."""
    return tuple(sorted(path.parent for path in (SHIPPED / "saes").glob("*/cfg.json")))


def base_digest() -> str:
    """Digest of the base's weights and tokenizer."""
    files = tuple(base_path() / name for name in ("model.safetensors", "tokenizer.json"))
    return _digest(files, tuple((file.stat().st_size, file.stat().st_mtime_ns) for file in files))


@functools.lru_cache(maxsize=4)
def _digest(files: tuple[Path, ...], as_of: object) -> str:
    """The first halves of the files' digests, read again only when a file has changed."""
    return "".join(sha256(file)[:32] for file in files)


def recipe_hash(organism: Organism) -> str:
    """Changes with the organism's recipe, the base's weights, and the code's version."""
    return organism.digest(base_digest=base_digest(), code_version=CODE_VERSION)


def entry_folder(organism: Organism, digest: str) -> Path:
    """The cache folder of an organism built from a recipe of that hash."""
    return cache_root() / f"{organism.id}-{digest[:12]}"


def shipped_adapter(organism: Organism) -> Path:
    """Where the adapter of an organism lies if it comes with the package."""
    return SHIPPED / "adapters" / organism.id
