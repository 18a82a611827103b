"""Ways to use more than was given. Every attack has a bound of its own, so that it can be tried without a sandbox."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path

_KEPT: list[bytearray] = []
_MIB = 2**20


def forks(most: int) -> int:
    """How many children could be made; they stay."""
    made = 0
    for _ in range(most):
        try:
            child = os.fork()
        except OSError:
            break
        if child == 0:
            # Each ends with the pipe of the process that is released.
            while os.getppid() > 1:
                time.sleep(0.2)
            os._exit(0)
        made += 1
    return made


def threads(most: int) -> int:
    """How many threads could be started; they stay."""
    threading.stack_size(64 * 1024)
    made = 0
    for _ in range(most):
        try:
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        except RuntimeError:
            break
        made += 1
    return made


def eat(mib: int) -> int:
    """Touch this much memory, or as much as there is."""
    eaten = 0
    with contextlib.suppress(MemoryError):
        while eaten < mib:
            _KEPT.append(bytearray(b"\1" * (8 * _MIB)))
            eaten += 8
    return eaten


def eat_in_children(children: int, mib: int) -> int:
    """Touch this much memory in each of several processes, which stay."""
    for _ in range(children):
        if os.fork() == 0:
            eat(mib)
            while os.getppid() > 1:
                time.sleep(0.2)
            os._exit(0)
    return children


def eat_files(folders: list[str], mib: int) -> int:
    """Fill directories with files of 8 MiB; the bytes that were written stay."""
    written = 0
    for folder in folders:
        for number in range(mib // 8):
            try:
                with (Path(folder) / f"fill-{number}").open("wb", buffering=0) as file:
                    for _ in range(8):
                        written += file.write(b"\1" * _MIB)
            except OSError:
                break
    return written


def descriptors(most: int) -> int:
    """How many descriptors could be opened; they stay open."""
    opened = 0
    with contextlib.suppress(OSError):
        for _ in range(most):
            os.open("/dev/null", os.O_RDONLY)
            opened += 1
    return opened


def spin(padding: str = "") -> None:
    """Compute without end and without giving up the interpreter's lock."""
    while True:
        pow(3, 10**6)


def flood(mib: int) -> int:
    """Print without a line end."""
    block = b"\xff" * _MIB
    written = 0
    for _ in range(mib):
        with contextlib.suppress(OSError):
            written += os.write(2, block)
    return written


def say(word: str) -> None:
    """Print one word."""
    os.write(2, f"{word}\n".encode())


def block_on_output(bytes_: int) -> int:
    """Fill the diagnostics and go on."""
    left = bytes_
    while left > 0:
        left -= os.write(2, b"x" * min(left, 65536))
    return bytes_
