"""The ``bubblewrap`` backend: namespaces, a file tree of its own, and the layer that the program puts on itself.

Started by an ordinary user, the sandbox gets a user namespace. Started by root it gets none: bubblewrap makes the file
tree as root, so that an interpreter below a private home can be shown, and ``setpriv`` then gives root up for a user id
that nothing else on the machine has; no process inside is ever root of the host.

The start is in two steps. Bubblewrap makes everything and waits; meanwhile the first process is put into a control
group, or a watchdog is set on it, and its limits are set from outside. Only then may it go on, to the script that
confines it from inside and becomes the program. What came of it is read from ``/proc`` by this process, and a sandbox
that is not what it must be is ended.

A worker on a graphics processor is shown ``/dev/nvidia*`` and a procfs of its own namespace, which CUDA needs. Both
make the kernel's surface larger, and the mount table inside then tells where things lie on the host; the stamp says so.
That profile has been written from documentation and never been run on such a machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import platform
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marple.errors import SandboxError, SandboxUnavailableError
from marple.sandboxes import outside
from marple.sandboxes.backend import TOOL_WORKER, BackendStatus, Limits, Program
from marple.sandboxes.booting import ENVIRONMENT, boot_argument, check_architecture
from marple.sandboxes.bubblewrap.binary import check_root_tools, find_bwrap, missing_for_root
from marple.sandboxes.bubblewrap.command import PROTECTIONS, SCRATCH, SCRIPT, Tree, program_command
from marple.sandboxes.bubblewrap.process import Held, SandboxedProcess
from marple.sandboxes.bubblewrap.start import Start, spawn
from marple.sandboxes.bubblewrap.uids import Uid, claim_uid
from marple.sandboxes.cgroups import Group, ask_systemd, make_group
from marple.sandboxes.inside import landlock
from marple.sandboxes.installation import ROOT, find_installation
from marple.sandboxes.watchdog import Watchdog

__all__ = ["BACKEND", "PROTECTIONS", "BubblewrapBackend"]


@dataclass(frozen=True)
class BubblewrapBackend:
    """Starts a program below bubblewrap."""

    binary: Path | None = None
    """Bubblewrap itself; None for where packages install it."""
    control_groups: bool = True
    """Whether control groups hold the limit on memory where this process may make them; else a watchdog does."""
    without: frozenset[str] = frozenset()
    """Protections left out, of ``PROTECTIONS``: for tests, which must see an attack succeed then."""
    name: str = "bubblewrap"
    preference: int = 30
    contains_code: bool = True

    def __post_init__(self) -> None:
        if self.without - PROTECTIONS:
            raise ValueError(f"no such protections: {sorted(self.without - PROTECTIONS)}")

    def probe(self) -> BackendStatus:
        """Whether everything it takes is there; whether it holds is found out by starting it."""
        try:
            _, version = _requirements(self.binary)
        except SandboxError as error:
            return BackendStatus(self.name, available=False, reason=str(error))
        return BackendStatus(self.name, available=True, stamp={"backend": self.name, "versions": _versions(version)})

    async def launch(self, root: Path, limits: Limits, program: Program = TOOL_WORKER) -> SandboxedProcess:
        """Start a program with a staged directory, and nothing else of the host's but what it runs from."""
        binary, version = _requirements(self.binary)
        uid = claim_uid() if os.geteuid() == 0 else None
        held: Held | None = None
        start: Start | None = None
        try:
            tree = Tree(find_installation(), root.resolve(), limits, program, uid is not None, self.without)
            start = await spawn(binary, tree, _command(tree, uid), None if uid is None else uid.number)
            held = Held(await start.first_process(), uid)
            stamp = {**_promised(tree), "versions": _versions(version), **await self._limit(held, tree)}
        except BaseException as error:
            await _abandon(start, held, uid, error)
            raise
        sandbox = SandboxedProcess(start.launcher, held, contained="unshare-pid" not in self.without)
        try:
            await start.open(held.pid)
            sandbox.stamp = {**stamp, **await start.examine(sandbox)}
        except BaseException:
            sandbox.kill()
            await sandbox.wait()
            sandbox.close()
            raise
        finally:
            start.close()
        return sandbox

    async def _limit(self, held: Held, tree: Tree) -> dict[str, Any]:
        """Bound what the whole sandbox may use while it waits; returns by what, for the stamp."""
        rlimits = held.limit(_rlimits(tree))
        memory = None if "memory" in self.without else _memory_bytes(tree.limits)
        processes = None if "processes" in self.without else tree.limits.processes
        group = held.group = await self._group(held.pid, memory, processes)
        if memory is not None and group is not None:
            held.watchdog = Watchdog(held.pid, memory, held.kill, out_of_memory=group.ran_out)
        elif memory is not None:
            held.watchdog = Watchdog(held.pid, memory, held.kill, scratch=SCRATCH)
        by = "watchdog" if group is None else group.by
        most = rlimits.get("nproc") if group is None else group.most_processes()
        return {
            "rlimits": rlimits,
            "memory": {"by": "nothing", "bytes": None} if memory is None else {"by": by, "bytes": memory},
            "processes": {"by": "rlimit" if group is None else by, "most": most}
            if processes is not None
            else {"by": "nothing", "most": None},
        }

    async def _group(self, pid: int, memory: int | None, processes: int | None) -> Group | None:
        if not self.control_groups or memory is None or processes is None:
            return None
        group = make_group(memory, processes)
        if group is not None:
            with contextlib.suppress(SandboxError):
                group.add(pid)
                return group
            group.remove()
        return await asyncio.to_thread(ask_systemd, pid, memory, processes)


BACKEND = BubblewrapBackend()


async def _abandon(start: Start | None, held: Held | None, uid: Uid | None, error: BaseException) -> None:
    """Undo a start that failed half-way; raises a better error where bubblewrap has said why."""
    printed = ""
    if held is not None:
        held.kill()
    if start is not None:
        printed = await start.abandon()
    if held is not None:
        held.let_go()
    elif uid is not None:
        uid.release()
    if isinstance(error, SandboxError | OSError) and start is not None:
        start.blame(printed, error)


def _requirements(binary: Path | None) -> tuple[Path, str]:
    """Bubblewrap and its version, where all that a start takes is there."""
    if sys.platform != "linux":
        raise SandboxUnavailableError("bubblewrap needs Linux; use --sandbox docker")
    check_architecture()
    found = find_bwrap(binary)
    if os.geteuid() == 0:
        check_root_tools()
        missing = missing_for_root()
        if missing:
            raise SandboxUnavailableError(missing)
    return found


def _versions(bubblewrap: str) -> dict[str, str]:
    return {"bubblewrap": bubblewrap, "kernel": platform.release()}


def _memory_bytes(limits: Limits) -> int:
    if limits.memory_gib is not None:
        return int(limits.memory_gib * 2**30)
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4


def _rlimits(tree: Tree) -> dict[str, int]:
    limits = tree.limits
    wanted: dict[str, int] = {}
    if "rlimits" not in tree.without:
        wanted |= {"core": 0, "fsize": limits.file_mib * 2**20, "nofile": limits.descriptors}
    if "processes" not in tree.without:
        wanted["nproc"] = limits.processes + (0 if tree.by_root else _counted_already())
    return wanted


def _counted_already() -> int:
    """The threads of this user that the limit counts beside the sandbox's: none since Linux 5.14, which counts them by
    user namespace.
    """
    numbers = re.match(r"(\d+)\.(\d+)", platform.release())
    if numbers is not None and (int(numbers[1]), int(numbers[2])) >= (5, 14):
        return 0
    own = str(os.geteuid())
    statuses = (outside.status_fields(pid) for pid in outside.processes())
    return sum(int(one.get("Threads", "0")) for one in statuses if one.get("Uid", "").split()[:1] == [own])


def _command(tree: Tree, uid: Uid | None) -> list[str]:
    told = json.loads(
        boot_argument(
            tree.program,
            script=str(SCRIPT),
            root=str(ROOT),
            sys_path=tree.installation.sys_path_inside,
            environment={**(os.environ if "env" in tree.without else ENVIRONMENT), **tree.variables},
            rlimits=_rlimits(tree),
            read=tree.readable,
            write=tree.writable,
            without=tree.without,
        )
    )
    if told["landlock"] is not None:
        # A second layer here, except between an agent's code and what supervises it.
        told["landlock"]["required"] = tree.program.holds_agent_code
    number = None if uid is None else uid.number
    return program_command(tree.installation, json.dumps(told), uid=number, without=tree.without)


def _promised(tree: Tree) -> dict[str, Any]:
    """The part of the stamp that follows from what was asked for; what the kernel says is added to it."""
    warnings = []
    abi = 0 if "landlock" in tree.without else landlock.abi()
    if not abi:
        warnings.append("no Landlock: the second layer below the file tree is missing")
    if tree.devices:
        warnings.append("a graphics processor: its driver's files and a procfs, with the host's paths, are inside")
    return {
        "backend": BACKEND.name,
        "isolation": "weakened" if tree.without else "reduced" if tree.devices else "full",
        "env": "host's" if "env" in tree.without else "empty",
        "filesystem": "own tree",
        "network": "not blocked" if {"unshare-net", "seccomp"} <= tree.without else "none",
        "landlock": abi,
        "seccomp": "none" if "seccomp" in tree.without else "allow-list",
        "warnings": warnings,
        "verified": [],
        **({"without": sorted(tree.without)} if tree.without else {}),
    }
