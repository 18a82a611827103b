"""A sandbox is started in two steps: everything is made and waits, then it goes on and is looked at from outside."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from marple.errors import SandboxError, SandboxUnavailableError
from marple.sandboxes import outside
from marple.sandboxes.bubblewrap.binary import explain
from marple.sandboxes.bubblewrap.command import Tree, launcher_command, namespaces, starts_apart
from marple.sandboxes.bubblewrap.process import SandboxedProcess
from marple.sandboxes.inside.boot import NOT_CONFINED
from marple.sandboxes.process import WorkerProcess
from marple.sandboxes.watchdog import members

__all__ = ["Start", "spawn"]

_SETUP_SECONDS = 10.0
_LOOK_SECONDS = 0.002
_ENDING_LOOKS = 200
_BEFORE = re.compile(r"(bwrap|setpriv): ")


@dataclass
class Start:
    """A sandbox whose file tree is being made, and that will not go on before ``open``."""

    launcher: WorkerProcess
    """Bubblewrap, with the pipes of the program."""
    tree: Tree
    uid: int | None
    """The user id it will have on the host; None for this process's own."""
    channel: Sequence[tuple[int, int]]
    _info: int = field(repr=False)
    _gate: int = field(repr=False)
    _inherited: list[str] = field(default_factory=list, repr=False)
    """What was found to be so before the program began."""

    async def first_process(self) -> int:
        """The process id, here, of the first process inside, once it exists.

        Raises:
            SandboxUnavailableError: bubblewrap could not make what it was told to.
        """
        info, self._info = self._info, -1
        try:
            async with asyncio.timeout(_SETUP_SECONDS):
                said = await _all_of(info)
        except TimeoutError:
            raise SandboxError(f"bubblewrap made no process in {_SETUP_SECONDS:g} s") from None
        finally:
            os.close(info)
        with contextlib.suppress(ValueError, KeyError):
            found = await self._seen_from_here(int(json.loads(said)["child-pid"]))
            if found is not None:
                return found
        await self.launcher.wait()
        raise SandboxUnavailableError(explain(await _rest(self.launcher.diagnostics)))

    async def _seen_from_here(self, number: int) -> int | None:
        """The process that bubblewrap knows by this number; None when it has ended, and bubblewrap with it.

        Bubblewrap that root started has a process namespace of its own: the number means another process here.
        """
        if not starts_apart(by_root=self.tree.by_root, without=self.tree.without):
            return number
        end = time.monotonic() + _SETUP_SECONDS
        while not outside.ended(self.launcher.pid or 0):
            for pid in members(self.launcher.pid or 0):
                # Its own namespace, in which it is 1, comes last.
                if outside.status_fields(pid).get("NSpid", "").split()[1:] == [str(number), "1"]:
                    return pid
            if time.monotonic() > end:
                raise SandboxError(f"the first process of the sandbox was not found in {_SETUP_SECONDS:g} s")
            await asyncio.sleep(_LOOK_SECONDS)
        return None

    async def open(self, pid: int) -> None:
        """Let the first process go on to the program.

        Raises:
            SandboxUnavailableError: it would hand something on to the program that it must not.
        """
        if not self.tree.by_root and not self.tree.without:
            await self._wait_until_seen(pid)
        with contextlib.suppress(BrokenPipeError):
            os.write(self._gate, b"\0")

    async def _wait_until_seen(self, pid: int) -> None:
        """Until its child waits for this process, bubblewrap has descriptors of its own open in it."""
        # It closes the gate and its own handle of /proc itself, last of all.
        proc = Path("/proc").stat()
        own = (outside.identity(self._gate), (proc.st_dev, proc.st_ino))
        expected = replace(self._expected(), variables=(), channel=(*self.channel, *own))
        end = time.monotonic() + _SETUP_SECONDS
        while not outside.ended(pid):
            problems = outside.inherits(pid, expected)
            if problems == []:
                self._inherited = ["descriptors", "environment"]
                return
            if time.monotonic() > end:
                why = "; ".join(problems or ["it cannot be looked at"])
                raise SandboxUnavailableError(f"the sandbox is not what it must be: {why}")
            await asyncio.sleep(_LOOK_SECONDS)

    async def examine(self, sandbox: SandboxedProcess) -> dict[str, Any]:
        """Wait until the program is confined and compare what the kernel says of it with what must be so.

        Returns:
            What goes into the stamp. Nothing is verified of a program that ended before it could be looked at.

        Raises:
            SandboxUnavailableError: a protection could not be set up, or does not hold.
        """
        assert sandbox.pid is not None
        end = time.monotonic() + self.tree.limits.start_seconds
        while not outside.ended(sandbox.pid):
            if outside.is_confined(sandbox.pid):
                return await self._judge(sandbox.pid)
            if time.monotonic() > end:
                raise SandboxError(f"the program was not confined in {self.tree.limits.start_seconds:g} s")
            await asyncio.sleep(_LOOK_SECONDS)
        return await self._autopsy(sandbox)

    async def abandon(self) -> str:
        """End bubblewrap and what it started; returns what was printed."""
        # Its child does not end with it before the program begins: it would wait for bubblewrap for ever, or go on.
        for pid in members(self.launcher.pid or 0):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.launcher.kill()
        await self.launcher.wait()
        self.close()
        printed = await _rest(self.launcher.diagnostics)
        self.launcher.close()
        return printed

    def blame(self, printed: str, error: Exception) -> None:
        """Raise what bubblewrap said of itself in place of what came of it."""
        if _BEFORE.match(printed) and not isinstance(error, SandboxUnavailableError):
            raise SandboxUnavailableError(explain(printed)) from error
        if isinstance(error, OSError):
            raise SandboxError(f"the sandbox ended while it was started: {printed.strip()[-400:] or error}") from error

    def close(self) -> None:
        """Let go of what is only needed for the start; harmless when repeated."""
        for name in ("_info", "_gate"):
            descriptor = getattr(self, name)
            setattr(self, name, -1)
            if descriptor >= 0:
                os.close(descriptor)

    async def _judge(self, pid: int) -> dict[str, Any]:
        try:
            if self.tree.without:
                return outside.seen(pid)
            found = outside.verify(pid, self._expected())
        except SandboxUnavailableError:
            # What has ended meanwhile looks like nothing that is expected.
            for _ in range(_ENDING_LOOKS):
                if outside.ended(pid):
                    return {}
                await asyncio.sleep(_LOOK_SECONDS)
            raise
        return {**found, "verified": sorted({*found["verified"], *self._inherited})}

    def _expected(self) -> outside.Expected:
        return outside.Expected(
            namespaces=namespaces(root=self.tree.by_root),
            uid=self.uid,
            variables=("PWD", *self.tree.variables),
            channel=self.channel,
            own_tree=True,
            writable=self.tree.writable,
            kernel_trees=("/proc",) if self.tree.shows_procfs else (),
        )

    async def _autopsy(self, sandbox: SandboxedProcess) -> dict[str, Any]:
        status = await sandbox.wait()
        printed = await _rest(sandbox.diagnostics)
        if _BEFORE.match(printed):
            raise SandboxUnavailableError(explain(printed))
        if status == NOT_CONFINED:
            raise SandboxUnavailableError(printed.strip()[-400:])
        # It began, and ended at once by itself: that is for whoever started it to hear.
        sandbox.diagnostics = asyncio.StreamReader()
        sandbox.diagnostics.feed_data(printed.encode("utf-8", "surrogateescape"))
        sandbox.diagnostics.feed_eof()
        return {}


async def spawn(binary: Path, tree: Tree, command: Sequence[str], uid: int | None) -> Start:
    """Have bubblewrap begin with a sandbox.

    Args:
        binary: bubblewrap.
        tree: the file tree and what else it sets up.
        command: what is started inside.
        uid: the user id the program will have; None for this process's own.

    Raises:
        SandboxError: bubblewrap could not be started.
    """
    info, info_end = os.pipe()
    gate_end, gate = os.pipe()
    passed = [info_end, gate_end]
    try:
        # With a reader of its own bubblewrap is not killed by its first word when this process has just died; its child
        # would wait for it for ever.
        passed.append(os.open(f"/proc/self/fd/{info_end}", os.O_RDWR | os.O_CLOEXEC))
        os.close(passed.pop(0))
        info_end = passed[-1]
        empty = tuple(_in_memory(b"", passed) for _ in range(tree.covered_files))
        options = [*replace(tree, empty=empty).options(), "--info-fd", str(info_end), "--block-fd", str(gate_end)]
        arguments = _in_memory(b"".join(os.fsencode(one) + b"\0" for one in options), passed)
        launcher = launcher_command(binary, by_root=tree.by_root, without=tree.without)
        process = _popen([*launcher, "--args", str(arguments), "--", *command], passed, tree.without)
    except BaseException:
        os.close(info)
        os.close(gate)
        raise
    finally:
        for descriptor in passed:
            os.close(descriptor)
    channel = [outside.identity(pipe.fileno()) for pipe in (process.stdin, process.stdout, process.stderr) if pipe]
    attaching = asyncio.ensure_future(WorkerProcess.attach(process, {}))
    try:
        attached = await asyncio.shield(attaching)
    except asyncio.CancelledError:
        await Start(await attaching, tree, uid, channel, info, gate).abandon()
        raise
    return Start(attached, tree, uid, channel, info, gate)


def _popen(command: Sequence[str], passed: Sequence[int], without: frozenset[str]) -> subprocess.Popen[bytes]:
    environment: Mapping[str, str] = dict(os.environ) if "env" in without else {}
    if "close-fds" in without:
        for descriptor in passed:
            os.set_inheritable(descriptor, True)
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
            cwd="/",
            close_fds="close-fds" not in without,
            pass_fds=() if "close-fds" in without else passed,
            start_new_session=True,
            umask=0o077,
        )
    except OSError as error:
        raise SandboxError(f"bubblewrap could not be started: {error}") from error


def _in_memory(content: bytes, passed: list[int]) -> int:
    descriptor = os.memfd_create("marple")
    passed.append(descriptor)
    os.write(descriptor, content)
    os.lseek(descriptor, 0, os.SEEK_SET)
    return descriptor


async def _all_of(descriptor: int) -> bytes:
    """What comes out of a pipe until its end, or the end of a JSON object."""
    loop, data = asyncio.get_running_loop(), bytearray()
    ended: asyncio.Future[bytes] = loop.create_future()

    def read() -> None:
        chunk = os.read(descriptor, 4096)
        data.extend(chunk)
        # What waits for bubblewrap may hold the pipe open.
        if (not chunk or data.endswith(b"}\n")) and not ended.done():
            ended.set_result(bytes(data))

    loop.add_reader(descriptor, read)
    try:
        return await ended
    finally:
        loop.remove_reader(descriptor)


async def _rest(diagnostics: asyncio.StreamReader) -> str:
    """What a process that has ended printed; a process it left behind may still hold the pipe."""
    with contextlib.suppress(TimeoutError):
        return (await asyncio.wait_for(diagnostics.read(), 1.0)).decode("utf-8", "surrogateescape")
    return ""
