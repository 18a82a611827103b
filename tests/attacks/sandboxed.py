"""Start a backend's sandbox with the runner of attacks in it, ask it, and look at it from outside."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marple.sandboxes.backend import Backend, Launched, Limits, Program
from marple.tools import wire
from tests.attacks.world import Root, World, join_keyring

LIMITS = Limits(memory_gib=0.5, scratch_mib=16, processes=64, descriptors=256, file_mib=8)
_SECONDS = 30.0


class HostLoop:
    """An event loop in a thread of its own: what a sandbox is started from, and may die with."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True, name="attack host")
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any], seconds: float = _SECONDS) -> Any:
        """The result of a coroutine."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(seconds)

    def close(self) -> None:
        """End the loop."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


class Sandbox:
    """One started sandbox."""

    def __init__(self, loop: HostLoop, backend: Backend, root: Root, limits: Limits) -> None:
        self.root, self.backend = root, backend
        self._loop = loop
        self._asked = 0
        self.printed = 0
        program = Program("attack", script=root.runner)
        self.launched: Launched = loop.run(backend.launch(root.path, limits, program), 60)
        self.stamp = self.launched.stamp
        self._tail = b""
        loop.run(self._start_draining())
        try:
            self.release()  # its answer says that the processes have their name
        except BaseException:
            self.close()
            raise

    def ask(
        self, function: str, *, hold: bool = False, here: bool = False, seconds: float = _SECONDS, **arguments: Any
    ) -> Any:
        """What an attack answers; ``{"died": status}`` where its process ended instead.

        Args:
            function: module and function in ``inside``.
            hold: leave the process as it is until ``release``.
            here: in the runner itself instead of a child.
            seconds: for the answer.
            arguments: for the function.

        Raises:
            SandboxEndedError: the sandbox ended.
        """
        self._asked += 1
        request = {"id": str(self._asked), "function": function, "hold": hold, "here": here, "arguments": arguments}
        try:
            answer = self._loop.run(self._exchange(wire.encode_frame(request)), seconds)
        except asyncio.IncompleteReadError as error:
            raise SandboxEndedError(
                f"{self.backend.name} ended: {self._tail[-2000:].decode('utf-8', 'replace')}"
            ) from error
        return answer.get("value", answer)

    def tell(self, function: str, **arguments: Any) -> None:
        """Begin an attack in the runner itself, without waiting for an answer."""
        frame = wire.encode_frame(
            {"id": "0", "function": function, "hold": False, "here": True, "arguments": arguments}
        )
        self._loop.run(self._send(frame))

    def release(self) -> None:
        """End what is held."""
        self.ask("release")

    @property
    def here(self) -> str:
        """The staged directory's path as the sandbox sees it."""
        return str(self.root.path if self.backend.name in ("process", "unconfined") else "/sbx/root")

    def pids(self) -> list[int]:
        """The host's numbers of every process of the sandbox, in whatever namespace."""
        return [number for number, name in _names() if name == self.root.token]

    def resident(self) -> int:
        """MiB of memory that belong to its processes alone."""
        return sum(_private_kib(number) for number in self.pids()) // 1024

    def wait(self, seconds: float = 10.0) -> int | None:
        """The exit status, None where it has not ended in this time."""
        with contextlib.suppress(TimeoutError):
            return int(self._loop.run(asyncio.wait_for(self.launched.wait(), seconds), seconds + 5))
        return None

    def kill(self) -> None:
        """End it as the host would."""
        self._loop.run(self._call(self.launched.kill))

    def close(self) -> None:
        """End it, and whatever got away from it."""
        self.kill()
        self.wait()
        self._loop.run(self._call(self.launched.close))
        self._loop.run(self._stop_draining())
        self.sweep()

    def sweep(self) -> list[int]:
        """End every process that still has its name; returns them."""
        left = self.pids()
        for number in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        return left

    async def _call(self, function: Any) -> None:
        function()
        await asyncio.sleep(0)

    async def _send(self, frame: bytes) -> None:
        self.launched.send(frame)

    async def _exchange(self, frame: bytes) -> dict[str, Any]:
        self.launched.send(frame)
        length = int.from_bytes(await self.launched.replies.readexactly(4), "big")
        return wire.decode_body(await self.launched.replies.readexactly(length))

    async def _start_draining(self) -> None:
        self._draining = asyncio.create_task(self._drain())

    async def _stop_draining(self) -> None:
        self._draining.cancel()
        await asyncio.wait({self._draining})

    async def _drain(self) -> None:
        with contextlib.suppress(Exception):
            while chunk := await self.launched.diagnostics.read(65536):
                self.printed += len(chunk)
                self._tail = (self._tail + chunk)[-4096:]


class SandboxEndedError(Exception):
    """The sandbox ended instead of answering."""


@dataclass
class Arena:
    """One backend with the world around it; attacks that harm nothing share one sandbox."""

    backend: Backend
    world: World
    loop: HostLoop
    limits: Limits = LIMITS
    _shared: list[Sandbox] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The backend's name."""
        return self.backend.name

    @property
    def without(self) -> str:
        """The protections that were taken away."""
        return ",".join(sorted(getattr(self.backend, "without", ())))

    @property
    def shared(self) -> Sandbox:
        """The sandbox that attacks share; a new one where the last has ended."""
        if self._shared and self._shared[-1].wait(0.001) is not None:
            self._shared.pop().close()
        if not self._shared:
            self._shared.append(self.start())
        return self._shared[-1]

    def ask(self, function: str, **arguments: Any) -> Any:
        """Ask the shared sandbox."""
        return self.shared.ask(function, **arguments)

    def start(self, limits: Limits | None = None) -> Sandbox:
        """A new sandbox; the caller closes it."""
        return Sandbox(self.loop, self.backend, self.world.root(), limits or self.limits)

    @contextlib.contextmanager
    def fresh(self, limits: Limits | None = None) -> Iterator[Sandbox]:
        """A sandbox for one attack alone."""
        one = self.start(limits)
        try:
            yield one
        finally:
            one.close()

    @contextlib.contextmanager
    def holding(self, function: str, **arguments: Any) -> Iterator[Any]:
        """An attack's answer, with its process left as it is meanwhile."""
        answer = self.ask(function, hold=True, **arguments)
        try:
            yield answer
        finally:
            self.shared.release()

    def close(self) -> None:
        """End the shared sandbox."""
        while self._shared:
            self._shared.pop().close()


def start_host(world: World) -> HostLoop:
    """The thread that starts sandboxes; its session keyring holds a canary."""
    loop = HostLoop()

    async def join() -> None:
        join_keyring(world)

    loop.run(join())
    return loop


def until(condition: Any, seconds: float) -> bool:
    """Whether a condition comes true in this time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return bool(condition())


def status_of(number: int) -> dict[str, str]:
    """The kernel's account of a process, empty where it has ended."""
    try:
        text = Path(f"/proc/{number}/status").read_text(encoding="utf-8")
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def descriptors_of(number: int) -> list[str]:
    """What a process's descriptors point to."""
    found = []
    with contextlib.suppress(OSError):
        for one in Path(f"/proc/{number}/fd").iterdir():
            with contextlib.suppress(OSError):
                found.append(str(one.readlink()))
    return found


def _names() -> Iterator[tuple[int, str]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                name = (entry / "comm").read_text(encoding="utf-8").strip()
                if name.startswith("atk-") and status_of(int(entry.name)).get("State", "Z")[0] not in "ZX":
                    yield int(entry.name), name


def _private_kib(number: int) -> int:
    fields = status_of(number)
    return sum(int(fields[name].split()[0]) for name in ("RssAnon", "RssShmem") if name in fields)
