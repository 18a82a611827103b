"""Ways to leave something behind, and to find what another sandbox left."""

from __future__ import annotations

import contextlib
import ctypes
from pathlib import Path

from . import kernel

_CREATE = 0o1000 | 0o666


def leave(word: str, name: str, folders: list[str], key: int) -> list[str]:
    """Leave a word wherever something can be left."""
    left = []
    for folder in folders:
        with contextlib.suppress(OSError):
            (Path(folder) / name).write_text(word, encoding="utf-8")
            left.append(folder)
    if (segment := kernel.call("shmget", key, 4096, _CREATE)) >= 0 and (place := _attach(segment)):
        ctypes.memmove(place, word.encode(), len(word))
        left.append("shared memory")
    if kernel.call("add_key", b"user", name.encode(), word.encode(), len(word), -4) > 0:
        left.append("keyring")
    return left


def find(name: str, folders: list[str], key: int, size: int) -> list[str]:
    """Find a word wherever something can be left."""
    found = []
    for folder in folders:
        with contextlib.suppress(OSError):
            found.append((Path(folder) / name).read_text(encoding="utf-8"))
    if (segment := kernel.call("shmget", key, 4096, 0)) >= 0 and (place := _attach(segment)):
        found.append(ctypes.string_at(place, size).decode("ascii", "replace"))
    for ring in (-4, -3):
        if (number := kernel.call("keyctl", 10, ring, b"user", name.encode(), 0)) > 0:
            text = ctypes.create_string_buffer(200)
            kernel.call("keyctl", 11, number, text, 200)
            found.append(text.value.decode("utf-8", "replace"))
    return found


def _attach(segment: int) -> int:
    kernel.LIBC.shmat.restype = ctypes.c_void_p
    place = kernel.LIBC.shmat(segment, None, 0)
    return 0 if place is None or place == 2**64 - 1 else int(place)
