"""Start and end hundreds of sandboxes, most of them by violence, and look for what is left.

    python benchmarks/soak.py [--backend NAME ...] [--cycles N] [--together N] [--seed N] [--json FILE]

Each cycle starts a worker without torch and ends it in one of eight ways at a random moment: closed when idle or at
work, killed, cancelled while it starts, ended by itself, with children that hold its pipes, or with the whole host
process killed. Afterwards no process, mount, control group, container, temporary file, descriptor or thread may be
there that was not there before, and every sandbox must start and answer; status 1 otherwise.
"""

from __future__ import annotations

import argparse
import asyncio
import collections
import contextlib
import ctypes
import importlib
import json
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from marple.errors import SandboxError
from marple.sandboxes import Limits, StagedTarget, Worker, start_worker
from marple.sandboxes.backend import Backend, Program, find_backends
from marple.sandboxes.scratch import claim_scratch

LIGHT = Program("light worker", script=Path(__file__).with_name("light_worker.py"))
LIMITS = Limits(call_seconds=60, start_seconds=60)
WAYS = ("closed", "closed at work", "killed", "cancelled", "ended", "children", "sessions", "host killed")
WEIGHTS = (3, 3, 4, 4, 2, 2, 2, 1)
_PR_SET_CHILD_SUBREAPER = 36


# ---------------------------------------------------------------------------------------------- what is there


@dataclass
class State:
    """Everything of this process's that an ended sandbox could leave behind."""

    processes: set[str] = field(default_factory=set)
    mounts: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    containers: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    descriptors: set[str] = field(default_factory=set)
    threads: set[str] = field(default_factory=set)

    def more_than(self, other: State) -> dict[str, list[str]]:
        """What is here and was not there."""
        more = {one.name: sorted(getattr(self, one.name) - getattr(other, one.name)) for one in fields(self)}
        return {name: items for name, items in more.items() if items}


def look(scratch: Path, hosts: set[int], *, docker: bool) -> State:
    """The state now.

    Args:
        scratch: where everything temporary goes.
        hosts: process ids that sandboxes were started from, this one's included.
        docker: ask the daemon too.
    """
    return State(
        processes=descendants(),
        mounts=mounts(docker=docker),
        groups={name for name in control_groups() if any(f"marple-{pid}-" in name for pid in hosts)},
        containers=containers(hosts) if docker else set(),
        files={str(path) for path in scratch.rglob("*")},
        descriptors=descriptors(),
        # The pool of the event loop keeps its threads, up to a fixed number.
        threads={thread.name for thread in threading.enumerate() if not thread.name.startswith("asyncio_")},
    )


def descendants() -> set[str]:
    """Processes below this one, zombies that nobody waits for reaped first.

    This process is made the reaper of orphans, so none of them can get out of its sight.
    """
    parents: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int(entry.joinpath("stat").read_text().rpartition(")")[2].split()[1])
    found: set[str] = set()
    for pid in parents:
        above = pid
        while (above := parents.get(above, 0)) not in (0, os.getpid()):
            pass
        if above and not _reaped(pid):
            with contextlib.suppress(OSError):
                found.add(f"{pid} {Path(f'/proc/{pid}/cmdline').read_bytes()[:100]!r}")
    return found


def _reaped(pid: int) -> bool:
    with contextlib.suppress(ChildProcessError):
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    return False


def mounts(*, docker: bool) -> set[str]:
    """Mount points with what is mounted; without those of a Docker daemon where it is not what is soaked."""
    found = {line.split(" ", 3)[3] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    return {line for line in found if docker or not ("/overlay2/" in line or "/netns/" in line)}


def descriptors() -> set[str]:
    found = set()
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the one that lists the others
            found.add(f"{link.name} {link.readlink()}")
    return {one for one in found if "/proc/" not in one}


def control_groups() -> Iterator[str]:
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        yield from (f"{folder}/{name}" for name in names if name.startswith("marple-"))


def containers(hosts: set[int]) -> set[str]:
    docker = importlib.import_module("docker")
    with contextlib.closing(docker.from_env()) as client:
        found = client.api.containers(all=True, filters={"label": "marple.sandbox=1"})
    return {one["Id"][:12] for one in found if one["Labels"].get("marple.owner") in {str(pid) for pid in hosts}}


# ---------------------------------------------------------------------------------------------- one cycle


@contextlib.contextmanager
def staged(scratch: Path) -> Iterator[StagedTarget]:
    """A staged directory with nothing in it."""
    claimed = claim_scratch(scratch)
    try:
        (claimed.path / "target").mkdir()
        (claimed.path / "cache").mkdir()
        yield StagedTarget(claimed.path, claimed.path / "target")
    finally:
        claimed.remove()


async def cycle(backend: Backend, scratch: Path, draw: random.Random, way: str, hosts: set[int]) -> None:
    """Start a sandbox and end it this way."""
    moment = draw.uniform(0, 0.1)
    if way == "host killed":
        hosts.add(await kill_a_host(backend.name, scratch, draw.uniform(0.5, 3)))
        return
    with staged(scratch) as target:
        starting = asyncio.create_task(start_worker(target, backend=backend, limits=LIMITS, program=LIGHT))
        if way == "cancelled":
            await asyncio.wait({starting}, timeout=draw.uniform(0, 0.6))
            starting.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await (await starting).close()
            return
        async with await starting as worker:
            await end(worker, way, moment)


async def end(worker: Worker, way: str, moment: float) -> None:
    """Bring a worker to its end, or to where closing it is difficult."""
    if way in ("children", "sessions", "closed"):
        await worker.call("do", {"what": "print" if way == "closed" else way}, seed=0)
        return
    work = asyncio.create_task(worker.call("do", {"what": "leave" if way == "ended" else "hang"}, seed=0))
    await asyncio.sleep(moment)
    if way == "killed" and worker.pid is not None:
        os.kill(worker.pid, signal.SIGKILL)
    if way == "closed at work" or worker.pid is None:
        await worker.close()
    with contextlib.suppress(SandboxError):
        await work
        raise AssertionError(f"a worker that was {way} answered")


async def kill_a_host(backend: str, scratch: Path, seconds: float) -> int:
    """Kill a process with two sandboxes, wherever it is with them by then; returns its id."""
    command = [sys.executable, __file__, "--host", str(scratch), "--backend", backend]
    host = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.DEVNULL)
    await asyncio.sleep(seconds)
    with contextlib.suppress(ProcessLookupError):
        host.kill()
    await host.wait()
    return host.pid


async def be_a_host(backend: Backend, scratch: Path) -> None:
    """Start two sandboxes and wait to be killed."""
    with staged(scratch) as one, staged(scratch) as two:
        await asyncio.gather(
            *(start_worker(each, backend=backend, limits=LIMITS, program=LIGHT) for each in (one, two))
        )
        await asyncio.sleep(600)


# ---------------------------------------------------------------------------------------------- all of them


async def soak(backend: Backend, *, cycles: int, together: int, seed: int, scratch: Path) -> dict[str, Any]:
    """So many cycles on one backend; the figures, with what was ``left``."""
    draw, hosts = random.Random(seed), {os.getpid()}
    docker = backend.name == "docker"
    ways = [way for way in WAYS if way != "sessions" or backend.contains_code]
    weights = [weight for way, weight in zip(WAYS, WEIGHTS, strict=True) if way in ways]
    # The first start may make what stays for good: an image, a thread of a pool, an open library.
    await cycle(backend, scratch, draw, "closed", hosts)
    await settle()
    before, began = look(scratch, hosts, docker=docker), time.perf_counter()
    counts: collections.Counter[str] = collections.Counter()
    faults: collections.Counter[str] = collections.Counter()
    places = asyncio.Semaphore(together)

    async def one(way: str) -> None:
        async with places:
            try:
                await cycle(backend, scratch, draw, way, hosts)
            except SandboxError as error:
                faults[f"{way}: {type(error).__name__}: {str(error)[:200]}"] += 1
            counts[way] += 1

    await asyncio.gather(*(one(way) for way in draw.choices(ways, weights, k=cycles)))
    seconds = time.perf_counter() - began
    # What killed hosts left is found and removed by the next that comes along.
    await cycle(backend, scratch, draw, "closed", hosts)
    left = look(scratch, hosts, docker=docker).more_than(before)
    deadline = time.monotonic() + 20
    while left and time.monotonic() < deadline:
        await settle()
        left = look(scratch, hosts, docker=docker).more_than(before)
    return {
        "backend": backend.name,
        "cycles": cycles,
        "seconds": round(seconds, 1),
        "ways": dict(counts),
        "faults": dict(faults),
        "left": left,
    }


async def settle() -> None:
    await asyncio.sleep(0.5)


def run(name: str, *, cycles: int, together: int = 4, seed: int = 0) -> dict[str, Any]:
    """Soak one backend in a scratch directory of its own; the figures."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    with tempfile.TemporaryDirectory(prefix="soak-") as folder:
        backend = find_backends()[name]
        return asyncio.run(soak(backend, cycles=cycles, together=together, seed=seed, scratch=Path(folder)))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", action="append", choices=find_backends(), help="repeatable; all that work here")
    parser.add_argument("--cycles", type=int, default=500)
    parser.add_argument("--together", type=int, default=4, help="sandboxes at a time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    parser.add_argument("--host", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.host:
        asyncio.run(be_a_host(find_backends()[options.backend[0]], options.host))
    names = options.backend or [name for name, backend in find_backends().items() if backend.probe().available]
    figures = []
    for name in names:
        found = run(name, cycles=options.cycles, together=options.together, seed=options.seed)
        figures.append(found)
        print(f"{name}: {found['cycles']} cycles in {found['seconds']} s, {options.together} at a time")
        for way, count in sorted(found["ways"].items()):
            print(f"  {way:16} {count}")
        for fault, count in found["faults"].items():
            print(f"  FAULT {count} times: {fault}")
        for one in fields(State):
            print(f"  left: {one.name:13} {len(found['left'].get(one.name, []))} {found['left'].get(one.name, '')}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")
    return int(any(found["left"] or found["faults"] for found in figures))


if __name__ == "__main__":
    sys.exit(main())
