"""The ``process`` backend: another process with an empty environment and resource limits, no kernel boundary.

It keeps honest code apart: no key, no variable, no descriptor of the host reaches the worker, its death or growth
does not take the host with it, and none of its processes outlives it. It does not stop hostile code from
reading files of the same user or from using the network, and its stamp says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marple.errors import SandboxError, SandboxUnavailableError
from marple.sandboxes.backend import TOOL_WORKER, BackendStatus, Limits, Program

__all__ = ["BACKEND", "ProcessBackend", "WorkerProcess"]

_WORKER = (sys.executable, "-I", "-B", "-m", "marple.tools.worker")
_STAMP: Mapping[str, Any] = {
    "backend": "process",
    "isolation": "reduced",
    "env": "empty",
    "filesystem": "not restricted",
    "network": "not blocked",
    "landlock": False,
    "seccomp": False,
    "namespaces": False,
}


@dataclass(frozen=True)
class ProcessBackend:
    """Starts the worker as a plain process in a session of its own."""

    command: Sequence[str] = _WORKER
    """The program; the staged directory is added as its last argument."""
    name: str = "process"
    preference: int = 10
    contains_code: bool = False

    def probe(self) -> BackendStatus:
        """Available on every POSIX system."""
        if os.name != "posix":
            return BackendStatus(self.name, available=False, reason="needs Linux or macOS")
        return BackendStatus(
            self.name,
            available=True,
            reason="no kernel boundary: files of this user and the network stay reachable",
            stamp={**_STAMP, "rlimits": _rlimits(Limits()) if _can_limit() else {}},
        )

    def _command(self, program: Program) -> Sequence[str]:
        return self.command if program.script is None else (sys.executable, "-I", "-B", str(program.script))

    async def launch(self, root: Path, limits: Limits, program: Program = TOOL_WORKER) -> WorkerProcess:
        """Start the worker with nothing of the host's but three pipes."""
        if program.holds_agent_code:
            raise SandboxUnavailableError("the process backend never runs code written by an agent")
        try:
            process = subprocess.Popen(
                [*self._command(program), str(root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env={},
                cwd=root,
                close_fds=True,
                start_new_session=True,
                umask=0o077,
            )
        except OSError as error:
            raise SandboxError(f"the worker process could not be started: {error}") from error
        try:
            stamp = {**_STAMP, "rlimits": _limit(process.pid, limits), **_seen_from_outside(process.pid)}
            return await WorkerProcess.attach(process, stamp)
        except BaseException:
            _kill_group(process)
            process.wait()
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    pipe.close()
            raise


BACKEND = ProcessBackend()


class WorkerProcess:
    """A started process; see ``Launched`` for what each member promises."""

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        stamp: Mapping[str, Any],
        *,
        replies: tuple[asyncio.StreamReader, asyncio.BaseTransport],
        diagnostics: tuple[asyncio.StreamReader, asyncio.BaseTransport],
        requests: asyncio.WriteTransport,
    ) -> None:
        self.stamp = stamp
        self.pid: int | None = process.pid
        self.replies, self.diagnostics = replies[0], diagnostics[0]
        self._requests = requests
        self._reading = (replies[1], diagnostics[1])
        self._process = process
        self._reaping = threading.Lock()
        self._exited: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        # A thread, not the loop's child watcher: the process is reaped even when the loop has stopped, and the
        # end of the process is seen although a process it started may still hold its pipes.
        threading.Thread(target=self._reap, daemon=True, name=f"reap-{process.pid}").start()

    @classmethod
    async def attach(cls, process: subprocess.Popen[bytes], stamp: Mapping[str, Any]) -> WorkerProcess:
        """Connect the process's pipes to the running event loop."""
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        loop = asyncio.get_running_loop()
        requests, _ = await loop.connect_write_pipe(asyncio.Protocol, process.stdin)
        return cls(
            process,
            stamp,
            replies=await _reader(process.stdout),
            diagnostics=await _reader(process.stderr),
            requests=requests,
        )

    def send(self, frame: bytes) -> None:
        """Queue one frame; lost without a word when the process has ended."""
        if not self._requests.is_closing():
            self._requests.write(frame)

    async def wait(self) -> int:
        """The exit status; minus the number of a signal."""
        return await asyncio.shield(self._exited)

    def kill(self) -> None:
        """SIGKILL to the process and everything in its group."""
        with self._reaping:
            _kill_group(self._process)

    def close(self) -> None:
        """Close the three pipes."""
        # Aborting twice, or after the worker closed its end, is an error in asyncio.
        if not self._requests.is_closing():
            self._requests.abort()
        for transport in self._reading:
            transport.close()

    def _reap(self) -> None:
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self._process.pid, os.WEXITED | os.WNOWAIT)
            # Still a zombie here, so its number cannot belong to another group yet.
            with self._reaping:
                _kill_group(self._process)
                status = self._process.wait()
        else:
            status = self._process.wait()
        with contextlib.suppress(RuntimeError):
            self._exited.get_loop().call_soon_threadsafe(self._note_exit, status)

    def _note_exit(self, status: int) -> None:
        if not self._exited.done():
            self._exited.set_result(status)


async def _reader(pipe: Any) -> tuple[asyncio.StreamReader, asyncio.BaseTransport]:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader, transport


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


def _can_limit() -> bool:
    return hasattr(resource, "prlimit")


def _rlimits(limits: Limits) -> dict[str, int]:
    wanted = {"core": 0, "fsize": limits.file_mib * 2**20, "nofile": limits.descriptors}
    if limits.memory_gib is not None:
        wanted["as"] = int(limits.memory_gib * 2**30)
    return wanted


def _limit(pid: int, limits: Limits) -> dict[str, int]:
    """Set the limits from outside, without code between fork and exec; reads back what holds."""
    if not _can_limit():
        return {}
    held = {}
    for name, value in _rlimits(limits).items():
        kind = getattr(resource, f"RLIMIT_{name.upper()}")
        try:
            _, ceiling = resource.prlimit(pid, kind)
            value = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
            resource.prlimit(pid, kind, (value, value))
            held[name] = resource.prlimit(pid, kind)[0]
        except ProcessLookupError:
            break
        except OSError as error:
            raise SandboxError(f"the limit {name} could not be set on the worker: {error}") from error
    return held


def _seen_from_outside(pid: int) -> dict[str, Any]:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
        status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    except OSError:
        return {}
    if environment:
        raise SandboxError("the worker's environment is not empty")
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    return {
        "uid": int(fields["Uid"].split()[0]),
        "no_new_privs": fields.get("NoNewPrivs") == "1",
        "seccomp": fields.get("Seccomp", "0") != "0",
    }
