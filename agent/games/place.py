"""Where the process that plays a run is met: a socket in a private folder, named by a file in the run folder."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from marple.errors import StorageError, UsageError

__all__ = [
    "LONGEST_REQUEST",
    "RUNTIME_VARIABLE",
    "forget",
    "leave_address",
    "log_of",
    "new_socket",
    "read_address",
    "starting",
]

RUNTIME_VARIABLE = "MARPLE_RUNTIME"
"""Environment variable with the folder for sockets; by default one below ``XDG_RUNTIME_DIR``, or in ``/tmp``."""

_LONGEST = 100
"""Bytes of a socket's path; Linux takes 107, other systems a little less."""

_ADDRESS = "player.json"

LONGEST_REQUEST = 16 * 2**20
"""Bytes of one request to the process behind a socket."""


def new_socket() -> Path:
    """A fresh path for a socket, in a folder that only this user can enter.

    Raises:
        UsageError: the folder is not private, or its path is too long for a socket.
        StorageError: it cannot be made.
    """
    folder = _runtime_folder()
    path = folder / f"{secrets.token_hex(6)}.sock"
    if len(os.fsencode(path)) > _LONGEST:
        raise UsageError(f"the path {str(path)!r} is too long for a socket; set {RUNTIME_VARIABLE} to a shorter folder")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise StorageError(f"the folder {folder} for sockets cannot be made: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise UsageError(
            f"the folder {folder} for sockets is open to others; make it yours alone (chmod 700), "
            f"or set {RUNTIME_VARIABLE} to another"
        )
    return path


def _runtime_folder() -> Path:
    chosen = os.environ.get(RUNTIME_VARIABLE)
    if chosen:
        return Path(chosen).absolute()
    session = os.environ.get("XDG_RUNTIME_DIR", "")
    if session and len(session) < _LONGEST // 2 and Path(session).is_dir():
        return Path(session) / "marple-play"
    return Path("/tmp") / f"marple-play-{os.getuid()}"


def leave_address(run: Path, socket: Path) -> None:
    """Write into a run folder where its process listens."""
    (run / _ADDRESS).write_text(json.dumps({"socket": str(socket)}), encoding="utf-8")


def read_address(run: Path) -> Path | None:
    """The socket of the process that plays a run, living or not; None where none has left one."""
    try:
        said = json.loads((run / _ADDRESS).read_text(encoding="utf-8"))
        path = Path(said["socket"])
        found = path.lstat()
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return path if stat.S_ISSOCK(found.st_mode) and found.st_uid == os.getuid() else None


def forget(run: Path | None, socket: Path | None) -> None:
    """Remove a socket, its log and the file that named it."""
    for path in (socket, socket and log_of(socket), run and run / _ADDRESS):
        if path is not None:
            with suppress(OSError):
                path.unlink()


def log_of(socket: Path) -> Path:
    """What the process behind a socket writes on standard error, for as long as it lives."""
    return socket.with_suffix(".log")


@contextmanager
def starting(run: Path) -> Iterator[None]:
    """Keep others from starting a process for a run at the same time; they wait."""
    descriptor = os.open(run, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
