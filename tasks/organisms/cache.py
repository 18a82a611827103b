"""The organisms' cache: entries keyed by recipe hash, checked by digest, written by atomic rename."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from marple.errors import OrganismError

__all__ = ["RECORD", "cache_root", "entry_problem", "file_digests", "install", "locked", "read_record", "sha256"]

RECORD: Final = "record.json"


def cache_root() -> Path:
    """``$MARPLE_CACHE/organisms``, by default under ``~/.cache/marple``."""
    named = os.environ.get("MARPLE_CACHE")
    return (Path(named) if named else Path.home() / ".cache" / "marple") / "organisms"


def sha256(path: Path) -> str:
    """Hex digest of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digests(folder: Path) -> dict[str, str]:
    """Digest of every file under a folder but its own record, by relative path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256(path) for path in files if path != folder / RECORD}


def read_record(folder: Path) -> dict[str, Any] | None:
    """The record of an entry, or None when it cannot be read."""
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def entry_problem(folder: Path, digest: str) -> str | None:
    """Why an entry cannot be used (missing, foreign, or broken), or None when it is sound."""
    if not folder.is_dir():
        return "missing"
    record = read_record(folder)
    if record is None:
        return "its record cannot be read"
    if record.get("recipe_hash") != digest:
        return "it was made from another recipe, base or version"
    recorded, present = record.get("files"), file_digests(folder)
    if recorded != present:
        wrong = sorted(set(present.items()) ^ set(dict(recorded or {}).items()))
        return f"its files are not those recorded ({', '.join(sorted({name for name, _ in wrong})) or 'none listed'})"
    return None


def install(folder: Path, record: Mapping[str, Any], write: Callable[[Path], None]) -> dict[str, Any]:
    """Write an entry beside its place with ``write(temporary)``, add its record, and move it there at once."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    # Whoever installs holds the entry's lock, so what others left half-written here is from the dead.
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        write(temporary)
        complete = {**record, "files": file_digests(temporary)}
        (temporary / RECORD).write_text(json.dumps(complete, indent=1, sort_keys=True) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        temporary.rename(folder)
    except OSError as error:
        raise OrganismError(f"cannot write the organism cache at {folder}: {error}") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return complete


@contextlib.contextmanager
def locked(name: str) -> Iterator[None]:
    """Hold the cache's lock of a name, so that two processes do not train the same organism."""
    path = cache_root() / f".{name}.lock"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("w")
    except OSError as error:
        raise OrganismError(f"cannot write the organism cache at {path.parent}: {error.strerror}") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
