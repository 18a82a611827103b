"""Landlock: a process gives up every file it does not name, connecting, and signals to those outside; no dependency.

The kernel's interface, ABI 1 (Linux 5.13) to 7: https://docs.kernel.org/userspace-api/landlock.html. It does not
hide names: whether a path exists can still be asked.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import sys
from collections.abc import Iterable
from typing import Any

__all__ = ["abi", "beside", "keeps_signals", "restrict"]

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_ASK_VERSION = 1
_PATH_BENEATH = 1
_SET_NO_NEW_PRIVS = 38

_EXECUTE, _WRITE_FILE, _READ_FILE, _READ_DIR = 1 << 0, 1 << 1, 1 << 2, 1 << 3
_REMOVE = 1 << 4 | 1 << 5
_MAKE_CHAR, _MAKE_DIR, _MAKE_REG, _MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = (1 << bit for bit in range(6, 13))
_REFER, _TRUNCATE, _IOCTL_DEVICE = 1 << 13, 1 << 14, 1 << 15
_TCP = 0b11
_SCOPES = 0b11

_READ = _EXECUTE | _READ_FILE | _READ_DIR
# No program can be started from where something can be written.
_WRITE = (
    _READ_FILE | _READ_DIR | _WRITE_FILE | _REMOVE | _MAKE_DIR | _MAKE_REG | _MAKE_FIFO | _MAKE_SYM | _REFER | _TRUNCATE
)
_OF_FILES = _EXECUTE | _WRITE_FILE | _READ_FILE | _TRUNCATE | _IOCTL_DEVICE
_LIBC = ctypes.CDLL(None, use_errno=True)


class _Ruleset(ctypes.Structure):
    _fields_ = [("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64)]


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = [("access", ctypes.c_uint64), ("directory", ctypes.c_int32)]


def abi() -> int:
    """The version of Landlock this kernel says it has, 0 where there is none."""
    return max(0, int(_LIBC.syscall(_CREATE, None, 0, _ASK_VERSION))) if os.uname().sysname == "Linux" else 0


def restrict(
    read: Iterable[str], write: Iterable[str], *, listed: Iterable[str] = (), tcp: bool = True, scopes: bool = True
) -> dict[str, Any]:
    """Confine the calling thread and everything it will start, for good.

    Args:
        read: files and directories that can be read and executed, with all below them; what does not exist is left out.
        write: those that can be read and written, not executed; devices among them can be controlled.
        listed: directories whose names, and those of all below them, can be listed, and nothing more.
        tcp: deny binding and connecting (from ABI 4).
        scopes: deny signals to processes outside and connections to their abstract sockets (from ABI 6).

    Returns:
        What was applied: ``abi``, ``files``, ``tcp`` and ``scopes``.

    Raises:
        OSError: the kernel has no Landlock, or refused.
    """
    version = abi()
    if not version:
        raise OSError(errno.ENOSYS, "this kernel has no Landlock (it is in Linux from 5.13, if it is switched on)")
    handled = _handled(version)
    rules = _Ruleset(handled, _TCP if tcp and version >= 4 else 0, _SCOPES if scopes and version >= 6 else 0)
    ruleset = _create(rules)
    try:
        for path in read:
            _allow(ruleset, path, _READ & handled)
        for path in listed:
            _allow(ruleset, path, _READ_DIR & handled)
        for path in write:
            _allow(ruleset, path, (_WRITE | _IOCTL_DEVICE) & handled)
        _LIBC.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        _checked(_LIBC.syscall(_RESTRICT, ruleset, 0), "the process could not be confined")
    finally:
        os.close(ruleset)
    return {"abi": version, "files": True, "tcp": bool(rules.net), "scopes": rules.scoped == _SCOPES}


def beside(paths: Iterable[str], hidden: Iterable[str]) -> tuple[list[str], list[str]]:
    """Files and directories without what is hidden in them: rules only ever allow, so what is beside it is named.

    Args:
        paths: what would be allowed.
        hidden: real paths in them, which are not to be.

    Returns:
        What to allow instead, and the directories that can then only be listed.
    """
    left_out = tuple(hidden)
    allowed: list[str] = []
    listed: list[str] = []
    waiting = [os.path.realpath(path) for path in paths]
    while waiting:
        path = waiting.pop()
        if path in left_out:
            continue
        if not any(one.startswith(path.rstrip("/") + "/") for one in left_out):
            allowed.append(path)
            continue
        with os.scandir(path) as entries:
            # What a link leads to is allowed by the name it has there, or not at all.
            waiting += [entry.path for entry in entries if not entry.is_symlink()]
        listed.append(path)
    return allowed, listed


def keeps_signals() -> bool:
    """Whether the signal scope works, found out by trying in a child: some kernels claim it and lack it."""
    if abi() < 6:
        return False
    child = os.fork()
    if child == 0:
        status = 1
        try:
            restrict([], [])
            os.kill(os.getppid(), 0)
        except PermissionError:
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def _create(rules: _Ruleset) -> int:
    # Older kernels refuse fields they do not know unless they are zero; some claim a version and lack its scopes.
    number = _LIBC.syscall(_CREATE, ctypes.byref(rules), ctypes.sizeof(rules), 0)
    while number < 0 and ctypes.get_errno() == errno.EINVAL and rules.scoped:
        rules.scoped >>= 1
        number = _LIBC.syscall(_CREATE, ctypes.byref(rules), ctypes.sizeof(rules), 0)
    return _checked(number, "the rules were refused")


def _handled(version: int) -> int:
    bits = (1 << 13) - 1
    for since, bit in ((2, _REFER), (3, _TRUNCATE), (5, _IOCTL_DEVICE)):
        if version >= since:
            bits |= bit
    return bits


def _allow(ruleset: int, path: str, access: int) -> None:
    try:
        place = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        if not stat.S_ISDIR(os.fstat(place).st_mode):
            access &= _OF_FILES
        rule = _Beneath(access, place)
        _checked(_LIBC.syscall(_ADD, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0), f"no rule for {path}")
    finally:
        os.close(place)


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"Landlock: {what} ({errno.errorcode.get(number, number)})")
    return int(result)


if __name__ == "__main__":
    sys.exit(0 if keeps_signals() else 1)
