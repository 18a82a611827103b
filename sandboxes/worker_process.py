"""A process on this machine with three pipes: how it is talked to, how it ends."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Mapping
from typing import Any

from marple.sandboxes.watchdog import Watchdog

__all__ = ["WorkerProcess", "kill_group"]


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
        self._watchdog: Watchdog | None = None
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
        made: list[asyncio.BaseTransport] = []
        try:
            requests, _ = await loop.connect_write_pipe(asyncio.Protocol, process.stdin)
            made.append(requests)
            replies = await _reader(process.stdout)
            made.append(replies[1])
            diagnostics = await _reader(process.stderr)
        except BaseException:
            # The loop would go on watching numbers that soon belong to the pipes of another worker.
            for transport in made:
                transport.close()
            raise
        return cls(process, stamp, replies=replies, diagnostics=diagnostics, requests=requests)

    @property
    def cause(self) -> str | None:
        """Why it ended, where that was not its own doing: it took more memory than it may."""
        return self._watchdog.exceeded or None if self._watchdog is not None else None

    def watch(self, most_bytes: int) -> None:
        """End it when all its processes together take more memory than this."""
        assert self.pid is not None
        self._watchdog = Watchdog(self.pid, most_bytes, self.kill)
        self._watchdog.start()

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
            kill_group(self._process)

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
                kill_group(self._process)
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


def kill_group(process: subprocess.Popen[bytes]) -> None:
    """SIGKILL to a process that leads its group, and to the whole group; nothing happens when it was reaped."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
