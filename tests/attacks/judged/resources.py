"""Ways to use more than the limits say; the host counts."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import resource
import time
from pathlib import Path
from typing import Any

import docker  # type: ignore[import-untyped]

from tests.attacks.attack import attack
from tests.attacks.sandboxed import LIMITS, Arena, Sandbox, SandboxEndedError, descriptors_of, status_of, until
from tests.attacks.world import canary

_MEMORY = dataclasses.replace(LIMITS, memory_gib=0.25)
_TOO_MUCH = 330
"""MiB: over the limit of 256 by more than the measure's error."""
_SETTLED = 2.0
"""Seconds within which what watches the memory must have seen it."""


_NOT_COUNTED = "the number of processes is not limited: the kernel counts all of a user's together, and none of root's"


@attack("start processes until it is refused, at a limit of 64", leaks={"process": _NOT_COUNTED})
def fork_bomb(arena: Arena) -> bool:
    with arena.fresh() as sandbox:
        _try(sandbox, "resources.forks", most=150)
        return len(sandbox.pids()) > LIMITS.processes


@attack("start threads until it is refused, at a limit of 64", leaks={"process": _NOT_COUNTED})
def thread_storm(arena: Arena) -> bool:
    with arena.fresh() as sandbox:
        _try(sandbox, "resources.threads", most=150)
        return sum(int(status_of(one).get("Threads", "0")) for one in sandbox.pids()) > LIMITS.processes


@attack("use 400 MiB of memory in one process, at a limit of 256")
def memory_bomb(arena: Arena) -> bool:
    with arena.fresh(_MEMORY) as sandbox:
        _try(sandbox, "resources.eat", mib=400)
        return _stays_large(sandbox)


@attack("use 400 MiB of memory in five processes together, at a limit of 256")
def memory_bomb_many(arena: Arena) -> bool:
    with arena.fresh(_MEMORY) as sandbox:
        _try(sandbox, "resources.eat_in_children", children=5, mib=80)
        until(lambda: sandbox.resident() > _TOO_MUCH or not sandbox.pids(), 3)
        return _stays_large(sandbox)


def _stays_large(sandbox: Sandbox) -> bool:
    end = time.monotonic() + _SETTLED
    while time.monotonic() < end:
        if sandbox.resident() < _TOO_MUCH:
            return False
        time.sleep(0.1)
    return True


@attack(
    "fill temporary files, shared memory and the working directory with 64 MiB each, at a limit of 16",
    leaks={"process": "it writes to the host's disk, in its staged directory; only the size of each file is limited"},
)
def disk_fill(arena: Arena) -> bool:
    with arena.fresh(dataclasses.replace(LIMITS, memory_gib=1.0)) as sandbox:
        folders = [f"{sandbox.here}/cache"]
        # Without a file tree of its own, /tmp is the host's, which is not filled to prove it.
        if arena.name not in ("unconfined", "process"):
            folders += ["/tmp", "/dev/shm"]  # noqa: S108
        written = _try(sandbox, "resources.eat_files", folders=folders, mib=64)
        return isinstance(written, int) and written > 3 * LIMITS.scratch_mib * 2**20


@attack("open descriptors until it is refused, at a limit of 256")
def fd_exhaust(arena: Arena) -> bool:
    with arena.holding("resources.descriptors", most=600):
        return max(len(descriptors_of(one)) for one in arena.shared.pids()) > LIMITS.descriptors


@attack(
    "print 200 MiB without a line end, to make the host remember it",
    control="none: the host drains what any program prints",
)
def output_flood(arena: Arena) -> bool:
    with arena.fresh() as sandbox:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        sandbox.ask("resources.flood", mib=200)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        return grown > 32 * 1024 or sandbox.printed < 100 * 2**20


@attack(
    "have what it prints written to the host's disk",
    apart=dict.fromkeys(("process", "bubblewrap"), "no log is kept of it by anybody"),
    control="none: it is the daemon that would write",
)
def printed_to_disk(arena: Arena) -> bool:
    word = canary("printed")
    with arena.fresh() as sandbox, contextlib.closing(docker.DockerClient(os.environ.get("DOCKER_HOST"))) as client:
        sandbox.ask("resources.say", word=word)
        until(lambda: sandbox.printed > 0, 5)
        logs = [client.api.inspect_container(one.id)["LogPath"] for one in client.containers.list()]
        return any(word in Path(log).read_text(encoding="utf-8") for log in logs if log and Path(log).exists())


@attack(
    "print, stop reading requests while the host sends many, and keep both sides waiting",
    control="none: the host has to stay able to act, nothing has to be prevented",
)
def stderr_deadlock(arena: Arena) -> bool:
    with arena.fresh() as sandbox:
        sandbox.tell("resources.block_on_output", bytes_=8 * 2**20)
        for _ in range(4):
            sandbox.tell("resources.spin", padding="x" * 2**20)
        alive = until(lambda: sandbox.printed >= 8 * 2**20, 10)
        sandbox.kill()
        return not alive or sandbox.wait(5) is None


def _try(sandbox: Sandbox, function: str, **arguments: Any) -> Any:
    # That the sandbox ends for its greed is one way to hold.
    with contextlib.suppress(SandboxEndedError, TimeoutError):
        return sandbox.ask(function, hold=True, **arguments)
    return None
