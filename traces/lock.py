"""One writer per run folder: a lock file that names its process and survives a crash without blocking anyone.

The file holds the process id, the process's start time (so that a reused id is not taken for the holder) and
the host. A lock whose process is gone is taken over. ``flock`` guards only the taking and the releasing.
"""

from __future__ import annotations

import fcntl
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from marple.errors import UsageError
from marple.traces.durable import storage_errors, write_all

__all__ = ["Holder", "acquire", "holder", "release"]


@dataclass(frozen=True)
class Holder:
    """The process a lock file names."""

    pid: int
    started: int | None
    """Clock ticks since boot (field 22 of ``/proc/PID/stat``); None where there is no ``/proc``."""
    host: str

    @property
    def alive(self) -> bool:
        """Whether that very process still runs; a process on another host counts as alive."""
        if self.host != socket.gethostname():
            return True
        if not _exists(self.pid):
            return False
        return self.started is None or self.started == _start_time(self.pid)


def holder(path: Path) -> Holder | None:
    """The live holder of the lock file at ``path``, or None."""
    try:
        found = _parse(path.read_bytes())
    except OSError:
        return None
    return found if found and found.alive else None


def acquire(path: Path) -> None:
    """Take the lock for this process; the lock of a dead process is taken over.

    Raises:
        UsageError: a live process holds it; names the process.
        StorageError: the file cannot be written.
    """
    with storage_errors(path), _guarded(path) as fd:
        found = _parse(os.read(fd, 4096))
        if found and found.alive:
            raise UsageError(
                f"process {found.pid} on {found.host} is writing {path.parent}; "
                f"wait for it or stop it (if it is surely gone, delete {path})"
            )
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        me = Holder(os.getpid(), _start_time(os.getpid()), socket.gethostname())
        write_all(fd, json.dumps(asdict(me)).encode())


def release(path: Path) -> None:
    """Give the lock back if this process holds it."""
    try:
        with _guarded(path, create=False) as fd:
            found = _parse(os.read(fd, 4096))
            if found and found.pid == os.getpid() and found.alive:
                path.unlink()
    except OSError:
        return  # a lock that cannot be removed goes stale with this process


@contextmanager
def _guarded(path: Path, *, create: bool = True) -> Iterator[int]:
    """The open lock file, with no other process between reading and writing it."""
    while True:
        fd = os.open(path, os.O_RDWR | (os.O_CREAT if create else 0), 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _is_current(fd, path):
                yield fd
                return
        finally:
            os.close(fd)


def _is_current(fd: int, path: Path) -> bool:
    # The last holder may have unlinked the file while we waited: then ours is a file without a name.
    try:
        return os.path.samestat(os.fstat(fd), path.stat())
    except FileNotFoundError:
        return False


def _parse(data: bytes) -> Holder | None:
    try:
        fields = json.loads(data)
        return Holder(int(fields["pid"]), fields["started"], str(fields["host"]))
    except (ValueError, TypeError, KeyError):
        return None  # empty or cut short: its writer died while taking it


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _start_time(pid: int) -> int | None:
    """Ticks since boot at which ``pid`` started; -1 for a zombie, which writes nothing any more."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    fields = stat[stat.rindex(")") + 2 :].split()  # the command name may hold spaces and brackets
    return -1 if fields[0] in "ZX" else int(fields[19])
