"""What is tried from inside when a backend is examined; the host decides what came of it.

Started as a sandbox's program. It reads one JSON frame that says where the host's canaries are, tries to reach each of
them, and answers with one frame that holds what it got; then it waits for the end of its channel, so that the host can
look at the running process from outside. It only opens what it must not have and writes nothing.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

_LIBC = ctypes.CDLL(None, use_errno=True)
_MOST = 64 * 1024
_CLONE_NEWUSER = 0x10000000
_PTRACE_SEIZE = 0x4206
_IO_URING_SETUP = 425
_RING = ctypes.create_string_buffer(120)
_FAMILIES = range(46)
_AF_UNIX = 1
_KERNEL_SETTINGS = ("/proc/sys/kernel/core_pattern", "/proc/sys/kernel/modprobe", "/proc/sysrq-trigger")
_CODE = "/sbx/code/marple/errors.py"


def _refusal(call: Callable[[], Any]) -> str | None:
    """The error a call ends with, None when it does what it must not do."""
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:200]
    return None


def _read(path: str) -> str:
    try:
        with Path(path).open("rb") as file:
            return file.read(_MOST).decode("utf-8", "replace")
    except OSError as error:
        return f"[{error.strerror}]"


def _connect(family: int, address: Any) -> str | None:
    def attempt() -> None:
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.settimeout(2)
            one.connect(address)

    return _refusal(attempt)


def _can_make(family: int) -> bool:
    def make(kind: int) -> None:
        socket.socket(family, kind).close()

    kinds = (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW)
    return any(_refusal(partial(make, kind)) is None for kind in kinds)


def _call(name: str, *arguments: int) -> str | None:
    """The error of a system call by the name of its wrapper, or by number through ``syscall``."""
    result = getattr(_LIBC, name)(*(ctypes.c_long(value) for value in arguments))
    number = ctypes.get_errno()
    if result >= 0:
        return None
    return os.strerror(number)


def _open(path: str, flags: int) -> str | None:
    return _refusal(lambda: os.close(os.open(path, flags)))


def _environments() -> str:
    """The environment of this process and of every other that can be seen."""
    found = [f"{name}={value}" for name, value in os.environ.items()]
    for process in ("1", "self", str(os.getppid())):
        found.append(_read(f"/proc/{process}/environ"))
    return "\n".join(found)


def _writable(root: str) -> list[str]:
    """Which of the files it runs from could be written."""
    names = [f"{root}/target/config.json", os.path.realpath(sys.executable), os.__file__, _CODE]
    return [name for name in names if Path(name).exists() and _open(name, os.O_WRONLY) is None]


def _capabilities() -> int:
    """The effective and bounding capabilities, as far as they can be asked for."""
    # PR_CAPBSET_READ is 23.
    bounding = sum(1 << one for one in range(41) if _LIBC.prctl(23, one, 0, 0, 0) == 1)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()
    effective = data[0] | data[3] << 32 if _LIBC.capget(header, data) == 0 else 0
    return bounding | effective


def _descriptors() -> list[int]:
    return [number for number in range(1024) if _refusal(partial(os.fstat, number)) is None]


def attempts(said: dict[str, Any], root: str) -> dict[str, Any]:
    """Everything that is tried; None and empty lists mean that what must not be possible was."""
    return {
        "descriptors": _descriptors(),
        "environment": _environments(),
        "tcp": _connect(socket.AF_INET, ("127.0.0.1", said["port"])),
        "unix_path": _connect(_AF_UNIX, f"{root}/{said['socket']}"),
        "unix_abstract": _connect(_AF_UNIX, "\0" + said["abstract"]),
        "families": [family for family in _FAMILIES if _can_make(family)],
        "io_uring": _call("syscall", _IO_URING_SETUP, 1, ctypes.addressof(_RING)),
        "mounts": _read("/proc/self/mountinfo") + _read("/proc/mounts"),
        "commands": _read("/proc/1/cmdline") + _read(f"/proc/{os.getppid()}/cmdline"),
        "file": _read(said["file"]),
        "stat": _refusal(Path(said["file"]).stat),
        "signal": _refusal(lambda: os.kill(said["pid"], 0)),
        "ptrace": _call("ptrace", _PTRACE_SEIZE, said["pid"], 0, 0),
        "kernel": [path for path in _KERNEL_SETTINGS if _open(path, os.O_WRONLY) is None],
        "root": None if os.getuid() == 0 else _refusal(lambda: os.setuid(0)),
        "capabilities": _capabilities(),
        "writable": _writable(root),
        # Last: where it works, everything after it would run in the new namespace.
        "namespaces": _call("unshare", _CLONE_NEWUSER),
    }


def main(root: str) -> None:
    """Answer the one request on descriptor 0 with one frame on descriptor 1."""
    length = int.from_bytes(os.read(0, 4), "big")
    said = json.loads(os.read(0, length))
    body = json.dumps(attempts(said, root)).encode("ascii")
    message = len(body).to_bytes(4, "big") + body
    while message:
        message = message[os.write(1, message) :]
    while os.read(0, 4096):
        pass


if __name__ == "__main__":
    main(sys.argv[1])
