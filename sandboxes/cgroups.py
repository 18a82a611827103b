"""Limits that hold for a whole sandbox: control groups, of either version, where this process may make them.

Three ways, tried in this order: groups of version 1 for memory and for processes; a group of version 2 below the
nearest ancestor that this process may write to and that hands both controllers on; a transient scope that the user's
systemd is asked for over D-Bus (``busctl --user``). Each is only believed once the kernel shows the process in the
group and the limits in its files. Where none works there is none, and the caller has to watch the memory itself.

Groups are named ``marple-<process id of the host>-<random>``, so that whoever comes later can tell that their owner is
gone, and remove them.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from marple.errors import SandboxError

__all__ = ["Group", "Hierarchy", "hierarchies", "make_group", "sweep_groups"]

_NAME = re.compile(r"marple-(\d+)-[0-9a-f]{12}(?:\.scope)?")
_REMOVAL_SECONDS = 2.0
_SCOPE_SECONDS = 1.0
_PAGE = os.sysconf("SC_PAGESIZE")
_BUSCTL = Path("/usr/bin/busctl")
_MEMORY = {"cgroup v1": "memory.limit_in_bytes", "cgroup v2": "memory.max"}


@dataclass(frozen=True)
class Hierarchy:
    """Where this process is in one tree of control groups."""

    version: int
    controllers: frozenset[str]
    """Those of the tree; of version 2, those of this process's own group."""
    mount: Path
    """Where the tree is mounted."""
    own: Path
    """The directory of this process's group, below ``mount``."""


@dataclass
class Group:
    """One sandbox's control group, or one of each kind; made by ``make_group``."""

    by: str
    """``cgroup v1`` or ``cgroup v2``."""
    memory: Path
    """The directory whose files say what memory it may use."""
    pids: Path
    """The directory whose files say how many processes it may have; the same as ``memory`` of version 2."""
    _removable: bool = field(default=True, repr=False)

    def add(self, pid: int) -> None:
        """Put a process, and all it will start, into the group, and see in the kernel's words that it is there.

        Raises:
            SandboxError: it is not.
        """
        try:
            for folder in {self.memory, self.pids}:
                (folder / "cgroup.procs").write_text(str(pid), encoding="ascii")
        except OSError as error:
            raise SandboxError(f"process {pid} could not be put into its control group: {error}") from error
        if not self.holds(pid):
            raise SandboxError(f"process {pid} was put into the control group {self.memory}, but is not in it")

    def holds(self, pid: int) -> bool:
        """Whether the kernel counts the process in this group."""
        return all(str(pid) in _read(folder / "cgroup.procs").split() for folder in (self.memory, self.pids))

    def processes(self) -> list[int]:
        """The processes in it."""
        return [int(one) for one in _read(self.memory / "cgroup.procs").split()]

    def memory_bytes(self) -> int:
        """The limit on memory that the kernel really has."""
        return int(_read(self.memory / _MEMORY[self.by]))

    def most_processes(self) -> int:
        """The limit on processes and threads that the kernel really has."""
        return int(_read(self.pids / "pids.max"))

    def ran_out(self) -> bool:
        """Whether the kernel has killed one of its processes for memory."""
        name = "memory.oom_control" if self.by == "cgroup v1" else "memory.events"
        return any(
            key == "oom_kill" and count != "0"
            for key, _, count in (line.partition(" ") for line in _read(self.memory / name).splitlines())
        )

    def remove(self) -> bool:
        """Remove it, waiting a moment for its processes to be gone; whether it is gone. A scope goes by itself."""
        return not self._removable or all([_remove(folder, _REMOVAL_SECONDS) for folder in {self.memory, self.pids}])


def hierarchies(
    cgroup: str | None = None,
    mountinfo: str | None = None,
) -> list[Hierarchy]:
    """The trees of control groups this process is in and can see.

    Args:
        cgroup: the text of ``/proc/self/cgroup``; None reads it.
        mountinfo: the text of ``/proc/self/mountinfo``; None reads it.
    """
    cgroup = _read(Path("/proc/self/cgroup")) if cgroup is None else cgroup
    mountinfo = _read(Path("/proc/self/mountinfo")) if mountinfo is None else mountinfo
    mounts = _mounts(mountinfo)
    found = []
    for line in cgroup.splitlines():
        _, names, path = line.split(":", 2)
        version, key = (1, frozenset(names.split(","))) if names else (2, frozenset({""}))
        if key not in mounts:
            continue
        mount, shown = mounts[key]
        own = _below(mount, shown, path)
        controllers = key if names else frozenset(_read(own / "cgroup.controllers").split())
        found.append(Hierarchy(version, controllers, mount, own))
    return found


def make_group(
    memory_bytes: int,
    processes: int,
    *,
    trees: Sequence[Hierarchy] | None = None,
) -> Group | None:
    """Make an empty group with these limits, None where this process may not.

    Groups that hosts which are gone left behind are removed on the way.

    Args:
        memory_bytes: most memory of all its processes and temporary files together, swap included.
        processes: most processes and threads.
        trees: where to look; None for ``hierarchies()``.
    """
    trees = hierarchies() if trees is None else trees
    sweep_groups(trees)
    name = f"marple-{os.getpid()}-{secrets.token_hex(6)}"
    places = _places_v1(trees) or _places_v2(trees)
    if places is None:
        return None
    by, memory, pids = places
    group = Group(by, memory / name, pids / name)
    try:
        for folder in {group.memory, group.pids}:
            folder.mkdir()
        _write_limits(group, memory_bytes, processes)
    except OSError:
        group.remove()
        return None
    return group


def sweep_groups(trees: Sequence[Hierarchy] | None = None) -> list[Path]:
    """Remove the groups of hosts that have ended; returns them. A group with a process in it cannot be removed."""
    trees = hierarchies() if trees is None else trees
    places = {tree.own for tree in trees} | {place for tree in trees for place in tree.own.parents if tree.version == 2}
    swept = []
    for place in places:
        with contextlib.suppress(OSError):
            for folder in place.glob("marple-*"):
                owner = _NAME.fullmatch(folder.name)
                if owner and not Path("/proc", owner[1]).exists() and _remove(folder, 0.0):
                    swept.append(folder)
    return swept


def ask_systemd(pid: int, memory_bytes: int, processes: int, *, busctl: Path = _BUSCTL) -> Group | None:
    """A scope of the user's systemd around a running process, None where there is no such thing.

    The process is only taken to be in it once its control group has changed to it and the limits stand in its files.
    """
    runtime = Path(f"/run/user/{os.geteuid()}")
    if not busctl.exists() or not (runtime / "bus").exists():
        return None
    name = f"marple-{os.getpid()}-{secrets.token_hex(6)}.scope"
    variables = {
        "XDG_RUNTIME_DIR": str(runtime),
        "DBUS_SESSION_BUS_ADDRESS": f"unix:path={runtime}/bus",
    }
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = [str(busctl), *_scope_call(name, pid, memory_bytes, processes)]
        subprocess.run(command, env=variables, check=True, capture_output=True, timeout=_SCOPE_SECONDS)
    return _found_scope(name, pid, memory_bytes, processes)


# ---------------------------------------------------------------------------------------------- where


def _mounts(mountinfo: str) -> Mapping[frozenset[str], tuple[Path, PurePosixPath]]:
    """Where each tree is mounted and which of its directories is shown there, by controllers; version 2 is ``{''}``."""
    found: dict[frozenset[str], tuple[Path, PurePosixPath]] = {}
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(" - ")
        kind, _, options = rest.split(" ", 2)
        shown, mount = fields.split(" ")[3:5]
        if kind == "cgroup2":
            found.setdefault(frozenset({""}), (Path(mount), PurePosixPath(shown)))
        elif kind == "cgroup":
            names = [one for one in options.split(",") if one not in ("rw", "ro", "xattr", "clone_children")]
            found.setdefault(frozenset(names), (Path(mount), PurePosixPath(shown)))
    return found


def _below(mount: Path, shown: PurePosixPath, path: str) -> Path:
    # In a container the path may be told from a root that is not the one shown.
    with contextlib.suppress(ValueError):
        own = mount / PurePosixPath(path).relative_to(shown)
        if own.is_dir():
            return own
    return mount


def _places_v1(trees: Sequence[Hierarchy]) -> tuple[str, Path, Path] | None:
    own = {name: tree.own for tree in trees if tree.version == 1 for name in tree.controllers}
    if not {"memory", "pids"} <= own.keys() or not all(os.access(own[name], os.W_OK) for name in ("memory", "pids")):
        return None
    return "cgroup v1", own["memory"], own["pids"]


def _places_v2(trees: Sequence[Hierarchy]) -> tuple[str, Path, Path] | None:
    """The nearest group, own or above, that can be written to and hands on both controllers.

    A group that holds processes hands nothing on, so it is normally one above this process's own; moving a process
    between two groups takes the right to write to what they have in common, which is what is looked for here.
    """
    for tree in trees:
        if tree.version != 2:
            continue
        for place in (tree.own, *tree.own.parents):
            handed = _read(place / "cgroup.subtree_control").split()
            if {"memory", "pids"} <= set(handed) and _may_move(place):
                return "cgroup v2", place, place
            if place == tree.mount:
                break
    return None


def _may_move(place: Path) -> bool:
    return os.access(place, os.W_OK) and os.access(place / "cgroup.procs", os.W_OK)


# ---------------------------------------------------------------------------------------------- limits


def _write_limits(group: Group, memory_bytes: int, processes: int) -> None:
    """Write the limits and read them back; OSError where the kernel has something else."""
    memory = memory_bytes // _PAGE * _PAGE
    limits: dict[Path, int] = {group.memory / _MEMORY[group.by]: memory, group.pids / "pids.max": processes}
    if group.by == "cgroup v1":
        # Memory and swap together, where swap is counted: without it the limit would only push pages out.
        limits[group.memory / "memory.memsw.limit_in_bytes"] = memory
    else:
        limits[group.memory / "memory.swap.max"] = 0
        limits[group.memory / "memory.oom.group"] = 1
    required = {group.memory / _MEMORY[group.by], group.pids / "pids.max"}
    for path, value in limits.items():
        if path not in required and not path.exists():
            continue
        path.write_text(str(value), encoding="ascii")
        if int(_read(path)) != value:
            raise OSError(f"{path} is {_read(path)!r}, not {value}")


def _scope_call(name: str, pid: int, memory_bytes: int, processes: int) -> list[str]:
    """The arguments of ``busctl`` that ask for a transient scope around one process."""
    properties = [
        *("PIDs", "au", "1", str(pid)),
        *("MemoryMax", "t", str(memory_bytes)),
        *("MemorySwapMax", "t", "0"),
        *("TasksMax", "t", str(processes)),
        *("CollectMode", "s", "inactive-or-failed"),
    ]
    manager = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
    head = ["--user", "--quiet", "call", *manager, "StartTransientUnit", "ssa(sv)a(sa(sv))", name, "fail"]
    return [*head, "5", *properties, "0"]


def _found_scope(name: str, pid: int, memory_bytes: int, processes: int) -> Group | None:
    end = time.monotonic() + _SCOPE_SECONDS
    while time.monotonic() < end:
        for line in _read(Path(f"/proc/{pid}/cgroup")).splitlines():
            path = line.partition("::")[2]
            tree = next((tree for tree in hierarchies() if tree.version == 2), None)
            if path.endswith(f"/{name}") and tree is not None:
                folder = tree.mount / path.lstrip("/")
                group = Group("cgroup v2", folder, folder, _removable=False)
                with contextlib.suppress(ValueError):
                    held = group.memory_bytes() // _PAGE == memory_bytes // _PAGE
                    if held and group.most_processes() == processes and group.holds(pid):
                        return group
        time.sleep(0.005)
    return None


def _remove(folder: Path, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while True:
        try:
            folder.rmdir()
        except FileNotFoundError:
            return True
        except OSError:
            if time.monotonic() >= end:
                return False
            time.sleep(0.005)
        else:
            return True


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""
