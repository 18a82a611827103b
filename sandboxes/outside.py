"""What the kernel says of a running sandbox, read from outside: nothing a program says about itself is believed.

Every backend asks here before it hands a started sandbox over. Whatever is expected and not so is an error, never a
smaller stamp; what this process may not look at is left out of ``verified``.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marple.errors import SandboxUnavailableError
from marple.sandboxes.inside.boot import CONFINED

__all__ = [
    "CAPABILITY_SETS",
    "NAMESPACES",
    "Expected",
    "ended",
    "identity",
    "inherits",
    "is_confined",
    "processes",
    "seen",
    "status_fields",
    "verify",
]

NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")
"""The kinds of namespaces a sandbox can have of its own."""
CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
_FULL_FILTER = "2"
_TREES_OF_THE_KERNEL = ("proc", "sysfs", "cgroup", "cgroup2", "devpts", "debugfs", "tracefs", "securityfs", "mqueue")


@dataclass(frozen=True)
class Expected:
    """What must be so; None or an empty value where it is not looked at."""

    namespaces: Collection[str] = ()
    """The kinds of namespaces it must not share with this process."""
    uid: int | None = None
    """The one user and group id it must have on the host. Whatever is expected, it must not be 0."""
    bounding: bool = True
    """Whether the capabilities it could ever gain must be none too; those it has always must."""
    variables: Collection[str] | None = None
    """The names of variables its environment may hold."""
    channel: Collection[tuple[int, int]] = ()
    """The pipes between it and this process, as ``identity`` has them."""
    own_tree: bool = False
    """Whether it has a file tree of its own: it must not hold a file of another tree, nor share this process's root."""
    writable: Collection[str] | None = None
    """The mount points it may write to, where it has a tree of its own."""
    kernel_trees: Collection[str] = ()
    """The mount points of procfs and the like that it may see, single read-only files excepted."""


def identity(descriptor: int) -> tuple[int, int]:
    """What tells an open file apart: its device and its number there. Both ends of a pipe have the same."""
    return _identity(os.fstat(descriptor))


def status_fields(pid: int) -> dict[str, str]:
    """``/proc/<pid>/status`` by name; empty when there is no such process."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def processes() -> list[int]:
    """Every process that can be seen."""
    return [int(path.name) for path in Path("/proc").iterdir() if path.name.isdecimal()]


def ended(pid: int) -> bool:
    """Whether a process has ended; one that was not reaped yet has."""
    return status_fields(pid).get("State", "X")[:1] in ("Z", "X")


def is_filtered(fields: Mapping[str, str]) -> bool:
    """Whether a process with this status has a system call filter of its own, beyond those of this process."""
    # Where this process is filtered itself, as in a container, the sandbox begins with that filter.
    own = status_fields(os.getpid())
    added = int(fields.get("Seccomp_filters", "1")) > int(own.get("Seccomp_filters", "0"))
    return added and fields.get("Seccomp") == _FULL_FILTER


def is_confined(pid: int) -> bool:
    """Whether a process has been given its protections: the system call filter is the last, then it says so itself."""
    fields = status_fields(pid)
    filtered = is_filtered(fields) and fields.get("NoNewPrivs") == "1"
    return filtered or fields.get("Name") == CONFINED


def verify(pid: int, expected: Expected) -> dict[str, Any]:
    """Compare what the kernel says of a process with what must be so.

    Returns:
        What goes into the stamp: ``uid``, ``no_new_privs``, ``capabilities``, ``namespaces`` and ``verified``, the list
        of what was looked at and is so.

    Raises:
        SandboxUnavailableError: something is not so.
    """
    fields = status_fields(pid)
    if not fields:
        raise SandboxUnavailableError(f"process {pid} of the sandbox cannot be seen in /proc, so nothing is verified")
    problems: list[str] = []
    verified = ["no_new_privs", "seccomp", "uid", "capabilities"]
    problems += _credentials(fields, expected)
    for name, look in _LOOKS.items():
        try:
            found = look(pid, expected)
        except PermissionError:
            continue
        except OSError as error:
            problems.append(f"{name} cannot be read: {error}")
            continue
        if found is not None:
            verified.append(name)
            problems += found
    if problems:
        raise SandboxUnavailableError(f"the sandbox is not what it must be: {'; '.join(problems)}")
    return {**seen(pid), "verified": sorted(verified)}


def seen(pid: int) -> dict[str, Any]:
    """What the kernel says of a process, for the stamp, without judging it."""
    fields = status_fields(pid)
    held = int(fields.get("CapEff", "0"), 16) | int(fields.get("CapPrm", "0"), 16)
    found: dict[str, Any] = {
        "uid": int(fields["Uid"].split()[0]) if "Uid" in fields else None,
        "no_new_privs": fields.get("NoNewPrivs") == "1",
        "capabilities": f"{held:#x}" if held else "none",
    }
    with contextlib.suppress(OSError):
        found["namespaces"] = [kind for kind in NAMESPACES if not _shares(pid, kind)]
    return found


def inherits(pid: int, expected: Expected) -> list[str] | None:
    """What a process that has not become its program yet would hand on beyond what is expected.

    An ordinary user may look at a program's descriptors and environment only until it makes itself undumpable.

    Returns:
        The problems; None while it cannot be seen.
    """
    try:
        kept = [number for number in _open_files(pid) if not _flags(pid, number) & os.O_CLOEXEC]
        files = {number: facts for number, facts in _open_files(pid).items() if number in kept}
        problems = _environment(pid, expected) or []
    except OSError:
        return None
    odd = [number for number, facts in files.items() if _identity(facts) not in set(expected.channel)]
    return problems + [f"it would inherit descriptor {number}" for number in odd]


# ---------------------------------------------------------------------------------------------- what is looked at


def _credentials(fields: Mapping[str, str], expected: Expected) -> list[str]:
    problems = []
    if fields.get("NoNewPrivs") != "1":
        problems.append("no_new_privs is not set")
    if not is_filtered(fields):
        problems.append("it has no system call filter")
    users = {int(one) for name in ("Uid", "Gid") for one in fields.get(name, "0").split()}
    groups = {int(one) for one in fields.get("Groups", "").split()}
    if 0 in {int(one) for one in fields.get("Uid", "0").split()}:
        problems.append("it runs as root of the host")
    if expected.uid is not None and (users != {expected.uid} or groups - {expected.uid}):
        problems.append(f"its user and group ids are {sorted(users | groups)}, not {expected.uid} alone")
    for name in CAPABILITY_SETS:
        if int(fields.get(name, "0"), 16) and (name != "CapBnd" or expected.bounding):
            problems.append(f"its capabilities {name} are {fields[name]}")
    return problems


def _namespaces(pid: int, expected: Expected) -> list[str] | None:
    if not expected.namespaces:
        return None
    return [f"it shares the host's {kind} namespace" for kind in expected.namespaces if _shares(pid, kind)]


def _environment(pid: int, expected: Expected) -> list[str] | None:
    if expected.variables is None:
        return None
    lines = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    names = {line.partition(b"=")[0].decode("utf-8", "replace") for line in lines if line}
    return [f"its environment holds {name}" for name in sorted(names - set(expected.variables))]


def _descriptors(pid: int, expected: Expected) -> list[str] | None:
    """Nothing but the channel, files of its own tree and what it made itself."""
    if not expected.channel:
        return None
    channel = set(expected.channel)
    mine = {_identity(facts) for facts in _open_files(os.getpid()).values()} - channel
    trees = {line.split(" ", 1)[0] for line in _mountinfo(pid)} if expected.own_tree else set()
    problems = []
    for number, facts in _open_files(pid).items():
        if _identity(facts) in channel:
            continue
        if stat.S_ISSOCK(facts.st_mode):
            problems.append(f"its descriptor {number} is a socket")
        elif stat.S_ISFIFO(facts.st_mode) and _identity(facts) in mine:
            problems.append(f"its descriptor {number} is a pipe of the host's")
        elif expected.own_tree and _has_place(facts) and _mount_of(pid, number) not in trees | {""}:
            problems.append(f"its descriptor {number} is a file from outside its tree")
    return problems


def _mounts(pid: int, expected: Expected) -> list[str] | None:
    if expected.writable is None:
        return None
    problems = []
    for line in _mountinfo(pid):
        left, _, right = line.partition(" - ")
        shown, place, options = left.split(" ")[3:6]
        kind = right.split(" ")[0]
        may = place in expected.writable
        device = place.startswith("/dev/") and kind == "devtmpfs"
        if "ro" not in options.split(",") and not may and not device:
            problems.append(f"{place} is not read-only")
        if kind in _TREES_OF_THE_KERNEL and shown == "/" and place not in expected.kernel_trees:
            problems.append(f"{place} shows the kernel's {kind}")
    return problems


def _root(pid: int, expected: Expected) -> list[str] | None:
    if not expected.own_tree:
        return None
    same = _identity(Path(f"/proc/{pid}/root").stat()) == _identity(Path("/").stat())
    return ["it has the host's root directory"] if same else []


_LOOKS = {
    "namespaces": _namespaces,
    "environment": _environment,
    "descriptors": _descriptors,
    "mounts": _mounts,
    "root": _root,
}


# ---------------------------------------------------------------------------------------------- how


def _shares(pid: int, kind: str) -> bool:
    return Path(f"/proc/{pid}/ns/{kind}").readlink() == Path(f"/proc/self/ns/{kind}").readlink()


def _identity(facts: os.stat_result) -> tuple[int, int]:
    return facts.st_dev, facts.st_ino


def _has_place(facts: os.stat_result) -> bool:
    return stat.S_ISREG(facts.st_mode) or stat.S_ISDIR(facts.st_mode) or stat.S_ISCHR(facts.st_mode)


def _open_files(pid: int) -> dict[int, os.stat_result]:
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        # One that was closed meanwhile.
        with contextlib.suppress(FileNotFoundError):
            found[int(path.name)] = path.stat()
    return found


def _mount_of(pid: int, number: int) -> str:
    """The number of the mount that an open file lies in; '' when it was closed meanwhile."""
    return _fdinfo(pid, number).get("mnt_id", "")


def _flags(pid: int, number: int) -> int:
    return int(_fdinfo(pid, number).get("flags", "0"), 8)


def _fdinfo(pid: int, number: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/fdinfo/{number}").read_text(encoding="utf-8", errors="replace").splitlines()
    except FileNotFoundError:
        return {}
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def _mountinfo(pid: int) -> Iterable[str]:
    return Path(f"/proc/{pid}/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines()
