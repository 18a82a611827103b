"""What an isolation backend is, and where they are found.

A backend is one file in this package with a module-level ``BACKEND``; nothing is registered anywhere. It starts a
worker in its kind of isolation and says honestly, in a stamp that ends up in the trace, what that kind gives.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import pkgutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

__all__ = [
    "CODE_WORKER",
    "TOOL_WORKER",
    "Backend",
    "BackendStatus",
    "Launched",
    "Limits",
    "Program",
    "find_backends",
]


@dataclass(frozen=True)
class Program:
    """What runs inside a sandbox: ``main(root)`` of a module of Marple's, or a script of the host's.

    A script is for probes and tests; code written by an agent is never a program, it reaches the code worker as the
    argument of a call.
    """

    name: str
    module: str | None = None
    """A module below ``marple.tools``."""
    script: Path | None = None
    """A Python file; it is given the staged directory's path as its one argument."""
    holds_agent_code: bool = False
    """Whether code written by an agent will run in it: only a backend that contains it may start it."""


TOOL_WORKER = Program("tool worker", module="marple.tools.worker")
CODE_WORKER = Program("code worker", module="marple.tools.code.supervisor", holds_agent_code=True)


@dataclass(frozen=True)
class Limits:
    """What a worker may use."""

    call_seconds: float = 300.0
    """Longest time for one call, from when it is sent; calls run beside each other and each has its own clock."""
    start_seconds: float = 180.0
    """Longest time from the start of the process to the loaded target."""
    memory_gib: float | None = None
    """Memory of the whole sandbox in GiB, all its processes and temporary files together; None for three quarters of
    this machine's."""
    file_mib: int = 64
    """Largest file the worker can write, in MiB."""
    scratch_mib: int = 64
    """Size of the sandbox's temporary files together, in MiB, where it has a file tree of its own."""
    descriptors: int = 512
    """Most open descriptors of one process."""
    processes: int = 256
    """Most processes and threads of the sandbox."""
    threads: int | None = None
    """Threads of torch; None leaves torch's default, one for each core."""
    device: str = "auto"
    """``cpu``, ``cuda``, ``mps``, or ``auto`` for the best one there is."""
    dtype: str | None = None
    """Name of a torch dtype; None keeps the checkpoint's own."""

    @property
    def memory_bytes(self) -> int:
        """Most memory of the whole sandbox, on this machine."""
        if self.memory_gib is not None:
            return int(self.memory_gib * 2**30)
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * 3 // 4


@dataclass(frozen=True)
class BackendStatus:
    """Whether a backend works on this machine, for ``marple doctor``."""

    name: str
    available: bool
    reason: str = ""
    """Why it is not available, or what it lacks."""
    stamp: Mapping[str, Any] = field(default_factory=dict)
    """What the trace of a run on it would say; ``open`` lists what could be done from inside."""


class Launched(Protocol):
    """A started worker as its backend hands it over."""

    replies: asyncio.StreamReader
    """Frames from the worker."""
    diagnostics: asyncio.StreamReader
    """Whatever the worker and its libraries print."""
    stamp: Mapping[str, Any]
    """What isolation was really given, verified from outside where that is possible."""
    pid: int | None
    """Process id on the host, where there is one."""

    @property
    def cause(self) -> str | None:
        """Why it ended, where that is known and was not its own doing, such as more memory than it may take."""

    def send(self, frame: bytes) -> None:
        """Queue one frame for the worker."""

    async def wait(self) -> int:
        """The exit status once the process has ended and was reaped; minus the number of a signal."""

    def kill(self) -> None:
        """End every process of the sandbox now; harmless when they have ended."""

    def close(self) -> None:
        """Let go of the pipes; harmless when repeated."""


class Backend(Protocol):
    """One way of isolating a worker."""

    @property
    def name(self) -> str:
        """What the user calls it."""

    @property
    def preference(self) -> int:
        """``auto`` takes the available backend with the highest one; 0 is never taken by itself."""

    def probe(self) -> BackendStatus:
        """Whether what it needs is there; whether it holds is found out by ``probing.status_of``, which starts it."""

    @property
    def contains_code(self) -> bool:
        """Whether code written by an agent may run in it."""

    async def launch(self, root: Path, limits: Limits, program: Program = TOOL_WORKER) -> Launched:
        """Start a program on a staged directory.

        Raises:
            SandboxUnavailableError: a protection it promises cannot be set up here.
            SandboxError: the process could not be started.
        """


def find_backends() -> dict[str, Backend]:
    """Every backend in this package, by name."""
    package = importlib.import_module("marple.sandboxes")
    found: dict[str, Backend] = {}
    for info in pkgutil.iter_modules(package.__path__, prefix="marple.sandboxes."):
        backend = getattr(importlib.import_module(info.name), "BACKEND", None)
        if backend is not None:
            found[backend.name] = backend
    return dict(sorted(found.items()))
