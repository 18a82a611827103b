"""User ids for sandboxes that are started by root: one of its own for each that runs at the same time.

The kernel counts processes by user id and lets processes of one user id signal each other, so two sandboxes never share
one. An id is claimed by locking the byte of its number in one file of root's; the kernel drops the lock when this
process ends in any way.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import pwd
import struct
from pathlib import Path

from marple.errors import SandboxUnavailableError

__all__ = ["RANGE", "Uid", "claim_uid"]

RANGE = range(60706, 61184)
"""What systemd's table of user ids leaves free: no package, container or service is given one of these."""
_LOCKS = Path("/run/marple-sandbox-uids")


class Uid:
    """A claimed user id; the group id of the same number goes with it."""

    def __init__(self, number: int, descriptor: int) -> None:
        self.number = number
        self._descriptor: int | None = descriptor

    def release(self) -> None:
        """Let others have it; harmless when repeated. Every process that runs under it must have ended."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def claim_uid(locks: Path = _LOCKS) -> Uid:
    """An id that no user and no running sandbox has.

    Args:
        locks: the file whose bytes are locked.

    Raises:
        SandboxUnavailableError: none is free, or none exists in this container.
    """
    try:
        descriptor = os.open(locks, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError as error:
        raise SandboxUnavailableError(f"no user id can be claimed for a sandbox: {error}") from error
    if os.fstat(descriptor).st_uid == os.geteuid():
        for number in RANGE:
            if not _is_taken(number) and _lock(descriptor, number):
                return Uid(number, descriptor)
    os.close(descriptor)
    raise SandboxUnavailableError(
        f"no user id from {RANGE.start} to {RANGE.stop - 1} is free for a sandbox: other sandboxes run, or this "
        f"container maps fewer ids, or {locks} is not root's"
    )


def _lock(descriptor: int, number: int) -> bool:
    # Locks of the open file, not of the process: several claims of one process exclude each other too.
    wanted = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, number, 1, 0)
    with contextlib.suppress(OSError):
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, wanted)
        return True
    return False


def _is_taken(number: int) -> bool:
    """Whether a user has it, or it does not exist here."""
    mapped = [tuple(map(int, line.split())) for line in Path("/proc/self/uid_map").read_text().splitlines()]
    if not any(first <= number < first + count for first, _, count in mapped):
        return True
    with contextlib.suppress(KeyError):
        pwd.getpwuid(number)
        return True
    return False
