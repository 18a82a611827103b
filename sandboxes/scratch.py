"""Directories with neutral names that vanish with the process that made them, even when it was killed."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import stat
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from marple.errors import StagingError

__all__ = ["Scratch", "claim_scratch", "sweep_scratch"]


@dataclass(frozen=True)
class Scratch:
    """One directory of this process's, under a random name."""

    path: Path
    _lock: int = field(repr=False, compare=False)

    def remove(self) -> None:
        """Delete the directory, read-only parts included; harmless when repeated."""
        _delete(self.path)
        lock = _lock_path(self.path)
        if lock.exists():
            lock.unlink()
            os.close(self._lock)


def claim_scratch(into: Path | None = None) -> Scratch:
    """Make a directory under a random name and mark it as this process's; sweep what dead processes left.

    Args:
        into: the directory to make it in; None for a private one in the system's temporary directory.

    Raises:
        StagingError: it cannot be made, or the private directory belongs to someone else.
    """
    try:
        parent = _private_parent() if into is None else into
        parent.mkdir(parents=True, exist_ok=True)
        sweep_scratch(parent)
        path = parent / secrets.token_hex(8)
        lock = _hold(_lock_path(path))
        path.mkdir(mode=0o700)
    except OSError as error:
        raise StagingError(f"no directory can be made to stage in: {error}") from error
    return Scratch(path, lock)


def sweep_scratch(parent: Path) -> list[Path]:
    """Delete the directories whose process has ended; returns them.

    The kernel drops a process's file locks when it ends in any way, so a lock that can be taken has no owner.
    """
    swept = []
    for lock in parent.glob(".*.lock"):
        with contextlib.suppress(OSError), lock.open("rb") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path = parent / lock.name.removeprefix(".").removesuffix(".lock")
            _delete(path)
            lock.unlink()
            swept.append(path)
    return swept


def _lock_path(path: Path) -> Path:
    # Beside the directory, not in it: who made it is not the worker's business.
    return path.with_name(f".{path.name}.lock")


def _hold(lock: Path) -> int:
    while True:
        descriptor = os.open(lock, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if lock.stat().st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        # Swept between the two calls.
        os.close(descriptor)


def _private_parent() -> Path:
    parent = Path(tempfile.gettempdir()) / f"marple-{os.getuid()}"
    parent.mkdir(mode=0o700, exist_ok=True)
    facts = parent.lstat()
    if not stat.S_ISDIR(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o022:
        raise StagingError(f"{parent} is not a private directory of this user; remove it or set TMPDIR")
    return parent


def _delete(path: Path) -> None:
    if not path.exists():
        return
    for folder, _, _ in os.walk(path):
        Path(folder).chmod(0o700)
    shutil.rmtree(path)
