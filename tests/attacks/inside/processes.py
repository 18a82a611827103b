"""Ways to other processes, and ways to outlive the sandbox."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import time
from pathlib import Path
from typing import Any

from . import kernel

_PTRACE_PEEKDATA, _PTRACE_ATTACH, _PTRACE_DETACH = 2, 16, 17
_TIOCSTI = 0x5412


def seen(process: int) -> dict[str, Any]:
    """Whether a process of this number is known here: by name in /proc, by what a signal to it says."""
    with contextlib.suppress(OSError):
        if (Path("/proc") / str(process)).exists():
            return {"listed": True, "signal": _signal(process, 0)}
    return {"listed": False, "signal": _signal(process, 0), "nobody": _signal(2**22 - 1, 0)}


def _signal(process: int, number: int) -> str:
    try:
        os.kill(process, number)
    except OSError as error:
        return type(error).__name__
    return "ok"


def end(process: int) -> list[str]:
    """Try to end a process in each way there is."""
    results = [_signal(process, signal.SIGTERM), _signal(process, signal.SIGKILL)]
    opened = kernel.call("pidfd_open", process, 0)
    if opened >= 0:
        with contextlib.suppress(OSError):
            signal.pidfd_send_signal(opened, signal.SIGKILL)
    return [*results, kernel.name_of(opened)]


def memory_of(process: int, address: int, size: int) -> list[str]:
    """What another process holds at an address."""
    return [way(process, address, size) for way in (_by_vm, _by_mem, _by_ptrace)]


def _by_vm(process: int, address: int, size: int) -> str:
    data = ctypes.create_string_buffer(size)
    here = (ctypes.c_size_t * 2)(ctypes.addressof(data), size)
    there = (ctypes.c_size_t * 2)(address, size)
    kernel.call("process_vm_readv", process, here, 1, there, 1, 0)
    return data.raw.decode("ascii", "replace")


def _by_mem(process: int, address: int, size: int) -> str:
    try:
        with Path(f"/proc/{process}/mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(size).decode("ascii", "replace")
    except OSError:
        return ""


def _by_ptrace(process: int, address: int, size: int) -> str:
    if kernel.call("ptrace", _PTRACE_ATTACH, process, 0, 0) < 0:
        return ""
    time.sleep(0.05)
    data = b""
    for offset in range(0, size, 8):
        word = ctypes.c_long()
        if kernel.call("ptrace", _PTRACE_PEEKDATA, process, address + offset, ctypes.byref(word)) < 0:
            break
        data += word.value.to_bytes(8, "little", signed=True)
    kernel.call("ptrace", _PTRACE_DETACH, process, 0, 0)
    return data.decode("ascii", "replace")


def descriptor_of(process: int, most: int) -> list[str]:
    """What the first descriptors of another process hold."""
    opened = kernel.call("pidfd_open", process, 0)
    if opened < 0:
        return []
    found = []
    for number in range(3, most):
        mine = kernel.call("pidfd_getfd", opened, number, 0)
        if mine >= 0:
            with contextlib.suppress(OSError):
                found.append(os.pread(mine, 4096, 0).decode("utf-8", "replace"))
            os.close(mine)
    return found


def daemonize() -> int:
    """Leave a process behind that belongs to nobody: another session, no descriptors, no parent."""
    if os.fork() == 0:
        with contextlib.suppress(OSError):
            os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            os.closerange(0, 1024)
            while True:
                time.sleep(60)
        os._exit(0)
    time.sleep(0.1)
    return os.getpid()


def ignore_everything() -> None:
    """Block every signal and the end of the channel, and sleep."""
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, signal.NSIG))
    os.closerange(0, 2)
    while True:
        time.sleep(60)


def leave(how: str) -> None:
    """End the process it runs in: by itself, or by a bad access."""
    if how == "exit":
        os._exit(3)
    ctypes.string_at(0)


def terminal(word: str) -> list[str]:
    """Write to the terminal of whoever started this, and put words into its mouth."""
    results = []
    for place in ("/dev/tty", "/dev/pts/0", "/dev/console"):
        try:
            opened = os.open(place, os.O_RDWR | os.O_NOCTTY)
        except OSError as error:
            results.append(type(error).__name__)
            continue
        if place == "/dev/tty":
            os.write(opened, word.encode())
            for character in word:
                with contextlib.suppress(OSError):
                    fcntl.ioctl(opened, _TIOCSTI, character.encode())
        results.append("ok")
        os.close(opened)
    return results
