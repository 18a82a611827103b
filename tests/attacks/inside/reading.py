"""Ways to secrets: files, environments, memory, keys, names."""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import mmap
import os
import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

from . import kernel

_MOST = 64 * 1024
_SKIPPED = {"/proc", "/sys", "/dev", "/usr", "/python", "/sbx/site", "/boot", "/lib", "/snap", "/var/lib"}
# Written so that it does not match itself in this process's memory.
_SECRET = re.compile(rb"[c]anary-([a-z]+)-([0-9a-f]{32})")


def environment() -> list[str]:
    """Every variable: Python's, the C library's."""
    pointer = ctypes.POINTER(ctypes.c_char_p).in_dll(kernel.LIBC, "environ")
    found = [f"{name}={value}" for name, value in os.environ.items()]
    number = 0
    while pointer and (entry := pointer[number]) is not None:
        found.append(entry.decode("utf-8", "replace"))
        number += 1
    return found


def of_processes(file: str) -> str:
    """The same file of every process there is to be seen."""
    return _excerpts("\n".join(_text(f"/proc/{one}/{file}") for one in _listed("/proc") if one.isdigit()))


def mounts() -> str:
    """What is mounted from where, from every place that says so."""
    texts = [_text(f"/proc/{one}") for one in ("self/mountinfo", "1/mountinfo", "mounts", "self/mountstats")]
    return "\n".join([*texts, *_mounts_by_number()])


def _mounts_by_number() -> Iterator[str]:
    request = (ctypes.c_uint64 * 4)(24, 2**64 - 1, 0, 0)  # every mount of this namespace
    numbers = (ctypes.c_uint64 * 512)()
    count = kernel.call("listmount", request, numbers, 512, 0)
    for number in numbers[: max(0, count)]:
        answer = ctypes.create_string_buffer(8192)
        if kernel.call("statmount", (ctypes.c_uint64 * 4)(24, number, 0x3F, 0), answer, 8192, 0) >= 0:
            yield answer.raw.replace(b"\0", b" ").decode("utf-8", "replace")


def files(paths: list[str]) -> list[str]:
    """The first bytes of each file, by its path and around it."""
    around = ("", "/proc/1/root", "/proc/self/root", "/proc/self/cwd/../../../../../../..", "../../../../../../../..")
    return [text for path in paths for before in around if (text := _text(before + path))]


def sizes(paths: list[str]) -> list[int]:
    """The size of each file that is there, without opening it."""
    found = []
    for path in paths:
        with contextlib.suppress(OSError):
            found.append(Path(path).stat().st_size)
    return found


def everything(most: int, further: list[str]) -> str:
    """Every secret in any file or file name within reach, in places where secrets may lie."""
    texts: list[str] = []
    seen = 0
    for top in (*further, "/"):
        if texts:
            break
        for folder, below, names in os.walk(top):
            below[:] = [one for one in below if os.path.join(folder, one) not in _SKIPPED]  # noqa: PTH118
            for name in names:
                seen += 1
                if seen > most:
                    return "\n".join(texts)
                texts += _found(f"{folder}/{name}\n{_text(f'{folder}/{name}')}".encode())
            texts += _found(folder.encode())
    return "\n".join(texts)


def truth(folders: list[str]) -> str:
    """The recipes of the organisms: as a package, and beside whatever of Marple's can be found."""
    for name in ("marple.tasks", "marple.agent", "marple.tasks.organisms"):
        with contextlib.suppress(ImportError):
            folders += list(importlib.import_module(name).__path__)
    texts = []
    for folder in folders:
        for path in sorted(Path(folder).rglob("*.yaml"))[:40]:
            texts.append(_text(str(path)))
    return "\n".join(texts)


def installation() -> str:
    """Where on the host things are installed: as Python and its packages say it."""
    texts = list(sys.path)
    for folder in sys.path:
        with contextlib.suppress(OSError):
            for path in sorted(Path(folder).iterdir()):
                if path.suffix == ".pth" or path.name.startswith(("__editable__", "marple")):
                    texts += [str(path), _text(str(path)), _text(str(path / "direct_url.json"))]
    return "\n".join(texts)


def own_memory() -> list[str]:
    """Secrets in this process's own memory, read page by page around its stack, heap and objects."""
    environ = ctypes.cast(ctypes.POINTER(ctypes.c_void_p).in_dll(kernel.LIBC, "environ"), ctypes.c_void_p).value
    kernel.LIBC.sbrk.restype = ctypes.c_void_p
    starts = [environ, kernel.LIBC.sbrk(0) - mmap.PAGESIZE, id(_SKIPPED), id(os.environ)]
    name = ctypes.c_char_p.in_dll(kernel.LIBC, "program_invocation_name")
    starts.append(ctypes.cast(name, ctypes.c_void_p).value)
    found: set[str] = set()
    for start in starts:
        if start:
            found.update(_around(start))
    return sorted(found)


def _around(address: int) -> Iterator[str]:
    reading, writing = os.pipe()
    page = mmap.PAGESIZE
    for step in (page, -page):
        place, before = address // page * page, b""
        for _ in range(4096):
            # The kernel copies: what is not mapped is an error, not a crash.
            if kernel.LIBC.write(writing, ctypes.c_void_p(place), page) != page:
                break
            now = os.read(reading, page)
            yield from _found(before + now if step > 0 else now + before)
            place, before = place + step, now
    os.close(reading)
    os.close(writing)


def keys(description: str) -> str:
    """A key of the session's keyring, found by its description."""
    for ring in (-3, -4, -5):
        key = kernel.call("keyctl", 10, ring, b"user", description.encode(), 0)
        if key > 0:
            text = ctypes.create_string_buffer(200)
            kernel.call("keyctl", 11, key, text, 200)
            return text.value.decode("utf-8", "replace")
    return ""


def by_handle(kind: int, handle: str, places: list[str]) -> str:
    """A file by the number the file system knows it by, past every directory."""
    content = bytes.fromhex(handle)
    record = ctypes.create_string_buffer(
        len(content).to_bytes(4, "little") + kind.to_bytes(4, "little") + content, 8 + len(content)
    )
    for place in places:
        with contextlib.suppress(OSError):
            at = os.open(place, os.O_RDONLY)
            opened = kernel.call("open_by_handle_at", at, record, os.O_RDONLY)
            if opened >= 0:
                return os.read(opened, 4096).decode("utf-8", "replace")
    return ""


def kernel_facts() -> list[str]:
    """What the kernel tells of the machine: its command line, its configuration, its log."""
    found = [_text(f"/proc/{one}") for one in ("cmdline", "version", "kallsyms", "config.gz", "partitions")]
    log = ctypes.create_string_buffer(1 << 16)
    size = kernel.call("syslog", 3, log, len(log))
    return [*found, log.raw[: max(0, size)].decode("utf-8", "replace")]


def identity() -> list[str]:
    """Names this machine can be told by."""
    places = ["/etc/hostname", "/etc/machine-id", "/proc/sys/kernel/random/boot_id", "/proc/sys/kernel/hostname"]
    places += ["/sys/class/dmi/id/product_uuid", "/sys/class/dmi/id/board_serial"]
    return [socket.gethostname(), *(text for path in places if (text := _text(path).strip()))]


def _found(data: bytes) -> list[str]:
    return [b"-".join((b"canary", kind, word)).decode() for kind, word in _SECRET.findall(data)]


def _excerpts(text: str) -> str:
    # A whole machine's processes may not fit into one frame.
    return "\n".join(_found(text.encode())) + "\n" + text[:_MOST]


def _listed(path: str) -> list[str]:
    try:
        return [one.name for one in Path(path).iterdir()]
    except OSError:
        return []


def _text(path: str) -> str:
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:  # noqa: PTH123
            return file.read(_MOST).decode("utf-8", "replace")
    except (OSError, ValueError):
        return ""
