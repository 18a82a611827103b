"""Backends that exist for the tests alone: no sandbox at all, and a careless one. What they let through is real."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marple.sandboxes.backend import TOOL_WORKER, BackendStatus, Limits, Program


class PlainProcess:
    """A started process; see ``marple.sandboxes.backend.Launched``."""

    def __init__(self, process: Process) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self._process, self._requests = process, process.stdin
        self.replies, self.diagnostics = process.stdout, process.stderr
        self.stamp: Mapping[str, Any] = {"isolation": "none"}
        self.pid: int | None = process.pid

    @property
    def cause(self) -> str | None:
        """Nobody ends it for a reason."""
        return None

    def send(self, frame: bytes) -> None:
        """Queue a frame."""
        self._requests.write(frame)

    async def wait(self) -> int:
        """The exit status."""
        return await self._process.wait()

    def kill(self) -> None:
        """End the process; nothing is done about what it started."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    def close(self) -> None:
        """Close its pipes."""
        self._requests.close()
        self._process._transport.close()  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Unconfined:
    """A program as anybody would start it: everything is inherited, nothing is limited."""

    name: str = "unconfined"
    preference: int = 0
    contains_code: bool = False
    before: tuple[str, ...] = field(default=())

    def probe(self) -> BackendStatus:
        """Available everywhere."""
        return BackendStatus(self.name, available=True)

    async def launch(self, root: Path, limits: Limits, program: Program = TOOL_WORKER) -> PlainProcess:
        """Start the program's script; the limits are not looked at."""
        inside = self.arguments(root)
        script = program.script
        assert script is not None
        command = [*self.before, *inside, sys.executable, "-I", "-B", str(script), self.root_inside(root)]
        return PlainProcess(
            await asyncio.create_subprocess_exec(
                *command, stdin=PIPE, stdout=PIPE, stderr=PIPE, env=dict(os.environ), cwd=root, close_fds=False
            )
        )

    def arguments(self, root: Path) -> list[str]:
        """What comes before the interpreter."""
        return []

    def root_inside(self, root: Path) -> str:
        """Where the staged directory is for the program."""
        return str(root)


@dataclass(frozen=True)
class CarelessBubblewrap(Unconfined):
    """Namespaces with everything shown in them, the way a first attempt looks."""

    name: str = "careless"

    def arguments(self, root: Path) -> list[str]:
        """The command line that hides nothing."""
        shown = [
            "--bind",
            "/",
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "--tmpfs",
            "/mnt",
            "--ro-bind",
            str(root),
            "/mnt/root",
        ]
        return ["/usr/bin/bwrap", "--unshare-pid", "--clearenv", *shown, "--chdir", "/"]

    def root_inside(self, root: Path) -> str:
        """Bound to a place of its own."""
        return "/mnt/root"
