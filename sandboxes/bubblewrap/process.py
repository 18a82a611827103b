"""A program that runs inside bubblewrap: its ends of the pipes, its end, and what is put away after it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import select
import signal
import threading
from collections.abc import Mapping
from typing import Any

from marple.errors import SandboxError
from marple.sandboxes.bubblewrap.uids import Uid
from marple.sandboxes.cgroups import Group
from marple.sandboxes.process import WorkerProcess
from marple.sandboxes.watchdog import Watchdog

__all__ = ["Held", "SandboxedProcess"]

_SIGNALLED = 128


class Held:
    """The first process of a sandbox, and what this process holds for it: all of it is let go of once it has ended."""

    def __init__(self, pid: int, uid: Uid | None) -> None:
        """The process must not have been reaped yet."""
        self.pid = pid
        self.uid = uid
        self.group: Group | None = None
        self.watchdog: Watchdog | None = None
        self._descriptor = os.pidfd_open(pid)
        self._lock = threading.Lock()

    def kill(self) -> None:
        """End the first process; the kernel ends all others of its process namespace before it reports the end."""
        with self._lock, contextlib.suppress(OSError):
            if self._descriptor >= 0:
                signal.pidfd_send_signal(self._descriptor, signal.SIGKILL)

    def limit(self, limits: Mapping[str, int]) -> dict[str, int]:
        """Set limits of resources from outside, soft and hard; returns what the kernel then has."""
        held = {}
        for name, value in limits.items():
            kind = getattr(resource, f"RLIMIT_{name.upper()}")
            try:
                ceiling = resource.prlimit(self.pid, kind)[1]
                value = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
                resource.prlimit(self.pid, kind, (value, value))
                held[name] = resource.prlimit(self.pid, kind)[0]
            except OSError as error:
                raise SandboxError(f"the limit {name} could not be set on the sandbox: {error}") from error
        return held

    def wait(self, seconds: float | None) -> bool:
        """Wait for the end of the first process; whether it came."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(None if seconds is None else seconds * 1000))

    def tend(self) -> None:
        """Watch until the end, then put everything away; for a thread of its own."""
        if self.watchdog is not None:
            self.watchdog.watch(self.wait)
        self.wait(None)
        self.let_go()

    def let_go(self) -> None:
        """Remove the control group and give the user id back."""
        if self.group is not None:
            self.group.remove()
        if self.uid is not None:
            self.uid.release()
        with self._lock:
            os.close(self._descriptor)
            self._descriptor = -1


class SandboxedProcess:
    """A started sandbox; see ``Launched`` for what each member promises."""

    def __init__(self, launcher: WorkerProcess, held: Held, *, contained: bool = True) -> None:
        """Tends what is held from now on.

        Args:
            launcher: bubblewrap, which ends when the sandbox has ended, with its status.
            held: the first process inside.
            contained: whether the end of the first process ends all others.
        """
        self.replies = launcher.replies
        self.diagnostics = launcher.diagnostics
        self.stamp: Mapping[str, Any] = {}
        self.pid: int | None = held.pid
        self._launcher = launcher
        self._held = held
        self._contained = contained
        loop = asyncio.get_running_loop()
        self._put_away = loop.create_future()
        # A thread, so that it happens even when the loop has stopped.
        threading.Thread(target=self._tend, args=(loop,), daemon=True, name=f"tend-{held.pid}").start()

    @property
    def cause(self) -> str | None:
        """Why it ended, where that is known and was not its own doing: it took more memory than it may."""
        watchdog = self._held.watchdog
        return watchdog.exceeded if watchdog is not None and watchdog.exceeded else None

    def send(self, frame: bytes) -> None:
        """Queue one frame; lost without a word when the process has ended."""
        self._launcher.send(frame)

    async def wait(self) -> int:
        """The exit status, once everything the sandbox had is put away; minus the number of a signal."""
        status = await self._launcher.wait()
        await asyncio.shield(self._put_away)
        # Bubblewrap says a signal as a shell does.
        return _SIGNALLED - status if status > _SIGNALLED else status

    def kill(self) -> None:
        """End every process of the sandbox now; harmless when they have ended."""
        self._held.kill()
        if not self._contained:
            self._launcher.kill()

    def close(self) -> None:
        """Let go of the pipes; harmless when repeated."""
        self._launcher.close()

    def _tend(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            self._held.tend()
        finally:
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(self._note)

    def _note(self) -> None:
        if not self._put_away.done():
            self._put_away.set_result(None)
