"""Writes that survive a crash, and what to tell a person when the disk refuses one."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from marple.errors import StorageError

__all__ = ["storage_errors", "sync_directory", "write_all", "write_atomic"]

_NEXT_STEP = {
    errno.ENOSPC: "free some disk space, then try again",
    errno.EDQUOT: "free some of your disk quota, then try again",
    errno.EFBIG: "the file size limit of this process is reached; raise it (ulimit -f)",
    errno.EACCES: "choose another runs folder or change its permissions",
    errno.EPERM: "choose another runs folder or change its permissions",
    errno.EROFS: "the file system is read-only; choose another runs folder",
    errno.ENOTDIR: "a part of the path is a file; choose another runs folder",
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` into a ``StorageError`` that names ``path``, the reason and the next step."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        step = _NEXT_STEP.get(error.errno or 0, "check the disk, then try again")
        raise StorageError(f"cannot write {path}: {reason}; {step}") from error


def write_all(fd: int, data: bytes) -> None:
    """Write all of ``data``: one ``write`` may take only a part of it."""
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(fd, rest) :]


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable: a rename is not until its directory is synced."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def write_atomic(path: Path, data: bytes) -> None:
    """Write a whole file so that readers see the old content or the new, never a part.

    Raises:
        StorageError: the disk refused it; the old file, if any, is as it was.
    """
    # One writer per folder (the lock), so a fixed name leaves one orphan at most; the next write reuses it.
    temporary = path.with_name(f".{path.name}.tmp")
    with storage_errors(path):
        try:
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
            try:
                write_all(fd, data)
                os.fsync(fd)
            finally:
                os.close(fd)
            temporary.replace(path)
        except OSError:
            _remove_quietly(temporary)
            raise
        sync_directory(path.parent)


def _remove_quietly(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return
