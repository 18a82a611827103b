"""The host's side of one running container."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marple.errors import SandboxError
from marple.sandboxes.docker.daemon import Daemon, asking
from marple.sandboxes.docker.owner import remove
from marple.sandboxes.docker.pipe import DockerPipe
from marple.sandboxes.scratch import Scratch

__all__ = ["DockerContainer", "exit_status", "visible_pid"]

_END_SECONDS = 5.0


class DockerContainer:
    """A started container; see ``Launched`` for what each member promises."""

    replies: asyncio.StreamReader
    """Frames from the worker; there from ``attach`` on, like the diagnostics."""
    diagnostics: asyncio.StreamReader
    """Whatever the worker and its libraries print."""

    def __init__(self, daemon: Daemon, container: str, scratch: Scratch, memory: int) -> None:
        self.stamp: Mapping[str, Any] = {}
        self.pid: int | None = None
        self.cause: str | None = None
        """Why it ended, where that is known and was not its own doing: its memory, or Docker itself."""
        self.container = container
        """Docker's id of the container."""
        self._daemon = daemon
        self._scratch: Scratch | None = scratch
        self._memory = memory
        self._loop = asyncio.get_running_loop()
        self._exited: asyncio.Future[int] = self._loop.create_future()
        self._pipe: DockerPipe | None = None
        self._ending: asyncio.Task[None] | None = None
        self._process: int | None = None
        self._guard = threading.Lock()
        self._remover: threading.Thread | None = None

    async def attach(self) -> None:
        """Connect the container's streams to the running event loop; before it is started, so that nothing is lost."""
        path = f"/v{self._daemon.api}/containers/{self.container}/attach"
        self._pipe = await DockerPipe.attach(self._daemon.socket, path, self._closed)
        self.replies, self.diagnostics = self._pipe.replies, self._pipe.diagnostics

    def started(self, pid: int | None) -> None:
        """Note that it runs, and under which process id where the host can see it."""
        self.pid = pid
        if pid is not None and hasattr(os, "pidfd_open"):
            with contextlib.suppress(OSError):
                self._process = os.pidfd_open(pid)
        # A daemon thread: a container whose end is awaited must not keep this process alive.
        threading.Thread(target=self._watch, daemon=True, name=f"docker-wait-{self.container[:12]}").start()

    def send(self, frame: bytes) -> None:
        """Queue one frame; lost without a word when the container has ended."""
        if self._pipe is not None:
            self._pipe.send(frame)

    async def wait(self) -> int:
        """The exit status once the container has ended and was removed; minus the number of a signal."""
        return await asyncio.shield(self._exited)

    def kill(self) -> None:
        """End every process of the container now and have it removed; harmless when repeated or without a daemon."""
        with self._guard:
            if self._process is not None:
                # Needs no daemon; only root may. The end of its first process ends all the others.
                with contextlib.suppress(OSError):
                    signal.pidfd_send_signal(self._process, signal.SIGKILL)
            if self._remover is None:
                # Not a daemon thread: Python waits for it, so that an ending program leaves no container behind.
                self._remover = threading.Thread(target=self._remove, name=f"docker-remove-{self.container[:12]}")
                self._remover.start()

    def close(self) -> None:
        """Close the socket to the daemon."""
        if self._pipe is not None:
            self._pipe.close()

    # ------------------------------------------------------------------------------------ the end

    def _watch(self) -> None:
        status = -int(signal.SIGKILL)
        try:
            with contextlib.closing(self._daemon.client()) as client, asking("waiting for the end of a container"):
                status = exit_status(client.wait(self.container, timeout=None)["StatusCode"])
                state = client.inspect_container(self.container)["State"]
                if state.get("OOMKilled") and status == -signal.SIGKILL:
                    self.cause = f"it ran out of memory (the limit is {self._memory / 2**20:.0f} MiB)"
        except SandboxError as error:
            # Removed before it could be looked at, or the daemon is gone.
            if self._remover is None:
                self.cause = f"Docker lost sight of it ({error})"
        # What was reported as ended has left nothing behind.
        self.kill()
        assert self._remover is not None
        self._remover.join()
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._note_exit, status)

    def _note_exit(self, status: int) -> None:
        if not self._exited.done():
            self._exited.set_result(status)

    def _remove(self) -> None:
        with contextlib.suppress(SandboxError), contextlib.closing(self._daemon.client()) as client:
            remove(client, self.container)
        with self._guard:
            if self._scratch is not None:
                self._scratch.remove()
                self._scratch = None
            if self._process is not None:
                os.close(self._process)
                self._process = None

    def _closed(self) -> None:
        # Held on to: the loop keeps only weak references to tasks.
        self._ending = self._loop.create_task(self._finish())

    async def _finish(self) -> None:
        # The daemon closes the socket a moment before it reports the end; both are wanted together.
        await asyncio.wait({self._exited}, timeout=_END_SECONDS)
        if self._pipe is not None:
            self._pipe.finish()


def exit_status(code: int) -> int:
    """Docker's status code as ``Launched.wait`` gives it: 128 and a signal's number are minus that number."""
    with contextlib.suppress(ValueError):
        return -signal.Signals(code - 128)
    return code


def visible_pid(pid: int, container: str) -> int | None:
    """The process id if it is this container's on this machine, None where the daemon counts in another namespace."""
    with contextlib.suppress(OSError):
        if container in Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8"):
            return pid
    return None
