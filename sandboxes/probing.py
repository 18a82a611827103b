"""Examine a backend: start it as in production, try from inside what it must prevent, judge from outside.

The program inside is ``inside/probe.py``. What it says is believed only where it admits that something worked; that
something did not work is taken from the host's own canaries: listeners that count their callers, random words that must
not turn up in anything read inside, and the kernel's view of the running process.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marple.errors import SandboxError
from marple.sandboxes.backend import Backend, BackendStatus, Launched, Limits, Program
from marple.sandboxes.scratch import claim_scratch
from marple.tools import wire

__all__ = ["CHECKS", "Check", "Examination", "examine", "last_examination", "status_of"]

_PROBE = Program("probe", script=Path(__file__).parent / "inside" / "probe.py")
_SECONDS = 30.0
_DESCRIPTORS = 4
_CANARY_VARIABLE = "MARPLE_PROBE_CANARY"
_PUBLIC_VARIABLES = ("PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR")


@dataclass(frozen=True)
class Check:
    """One thing that was tried from inside."""

    name: str
    held: bool
    what: str
    """What was tried, in words."""
    detail: str = ""
    """What came of it where it did not hold."""


@dataclass(frozen=True)
class Examination:
    """What a backend gives on this machine."""

    backend: str
    checks: tuple[Check, ...]
    stamp: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    """Time from the start to the end of the examination."""
    problem: str = ""
    """Why it could not be examined at all."""

    @property
    def open(self) -> list[str]:
        """The names of what did not hold."""
        return [check.name for check in self.checks if not check.held]

    def to_json(self) -> dict[str, Any]:
        """As ``marple sandbox probe --json`` prints it."""
        return {
            "backend": self.backend,
            "problem": self.problem,
            "open": self.open,
            "checks": [vars(check) for check in self.checks],
            "stamp": dict(self.stamp),
            "seconds": round(self.seconds, 3),
        }


# ---------------------------------------------------------------------------------------------- what is judged


@dataclass(frozen=True)
class _Seen:
    """Everything the checks judge by."""

    got: Mapping[str, Any]
    canaries: _Canaries
    outside: Mapping[str, str]
    """Fields of ``/proc/<pid>/status`` while it ran; empty where the process cannot be seen."""


_Judge = Callable[[_Seen], str]
"""Returns what was found, '' where the protection held."""


def _worked(key: str, words: str) -> _Judge:
    """A check of something that gives an error when it is prevented."""
    return lambda seen: "" if seen.got[key] is not None else words


def _listed(key: str, words: str) -> _Judge:
    return lambda seen: f"{words}: {', '.join(str(one) for one in seen.got[key])}" if seen.got[key] else ""


def _reached(key: str, listener: str) -> _Judge:
    def judge(seen: _Seen) -> str:
        called = seen.canaries.callers(listener)
        return "" if seen.got[key] is not None and not called else f"the host's listener got {called} connections"

    return judge


def _told(key: str, *canaries: str) -> _Judge:
    def judge(seen: _Seen) -> str:
        found = [name for name in canaries if getattr(seen.canaries, name) in seen.got[key]]
        return f"it reads the host's {', '.join(found)}" if found else ""

    return judge


def _environment(seen: _Seen) -> str:
    if seen.canaries.variable in seen.got["environment"]:
        return "it reads the launcher's variables"
    # A variable that was set later is not in /proc; those the launcher itself was started with are.
    own = [f"{name}={value}" for name, value in os.environ.items() if len(value) > 7 and name not in _PUBLIC_VARIABLES]
    found = [one.split("=")[0] for one in own if one in seen.got["environment"]]
    return f"it reads the launcher's {', '.join(found[:3])}" if found else ""


def _status(name: str, wanted: Callable[[str], bool]) -> _Judge:
    def judge(seen: _Seen) -> str:
        value = seen.outside.get(name, "").strip()
        return "" if not seen.outside or wanted(value) else f"the kernel says {name} {value or 'nothing'}"

    return judge


CHECKS: Mapping[str, tuple[str, _Judge]] = {
    "descriptors": (
        "hold more than the channel, the diagnostics and what Python opens",
        lambda seen: f"{len(seen.got['descriptors'])} are open" if len(seen.got["descriptors"]) > _DESCRIPTORS else "",
    ),
    "environment": ("read the launcher's environment, its own or another process's", _environment),
    "tcp": ("connect to a listener of the host on loopback", _reached("tcp", "tcp")),
    "unix_path": ("connect to a socket in a mounted directory", _reached("unix_path", "unix_path")),
    "unix_abstract": ("connect to an abstract socket of the host", _reached("unix_abstract", "unix_abstract")),
    "sockets": ("make a socket of any of 46 families", _listed("families", "families")),
    "io_uring": ("set up io_uring", _worked("io_uring", "a ring was made")),
    "mounts": ("read in the mount table where things lie on the host", _told("mounts", "folder", "secret_folder")),
    "commands": ("read other processes' command lines", _told("commands", "folder")),
    "host_file": ("read a file of the host by its path", _told("file", "secret")),
    "host_path": ("learn whether a path exists on the host", _worked("stat", "stat says that it exists")),
    "signal": ("signal the host's process", _worked("signal", "a signal could be sent")),
    "ptrace": ("trace the host's process", _worked("ptrace", "it was attached")),
    "kernel_settings": ("open kernel settings for writing", _listed("kernel", "opened")),
    "namespaces": ("make a user namespace", _worked("namespaces", "one was made")),
    "not_root": ("be or become root", _worked("root", "its uid is 0")),
    "capabilities": (
        "hold capabilities",
        lambda seen: f"{seen.got['capabilities']:#x}" if seen.got["capabilities"] else "",
    ),
    "read_only": ("open what it runs from for writing", _listed("writable", "opened")),
    "no_new_privileges": ("run without no_new_privs", _status("NoNewPrivs", lambda value: value == "1")),
    "seccomp": ("run without a system call filter", _status("Seccomp", lambda value: value == "2")),
}
"""What is tried, by name: words, and how the host judges it."""


# ---------------------------------------------------------------------------------------------- the host's canaries


class _Canaries:
    """What the host puts where only it should see it, and how often it was reached."""

    def __init__(self, root: Path, elsewhere: Path) -> None:
        self.variable, self.secret = secrets.token_hex(16), secrets.token_hex(16)
        self.folder, self.secret_folder = root.name, elsewhere.name
        self._root = root
        self._file = elsewhere / "secret.txt"
        self._file.write_text(self.secret, encoding="ascii")
        self._file.chmod(0o444)
        elsewhere.chmod(0o755)
        self._abstract = f"marple-{secrets.token_hex(8)}"
        self._listeners: dict[str, socket.socket] = {}
        self._port = 0

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Listen on loopback, on a socket file in the staged directory and on an abstract name."""
        with contextlib.ExitStack() as open_ones:

            def listen(name: str, family: socket.AddressFamily, address: Any) -> socket.socket:
                one = open_ones.enter_context(socket.socket(family, socket.SOCK_STREAM))
                one.bind(address)
                one.listen()
                one.setblocking(False)
                self._listeners[name] = one
                return one

            self._port = listen("tcp", socket.AF_INET, ("127.0.0.1", 0)).getsockname()[1]
            with contextlib.suppress(OSError):  # a path too long for a socket; what cannot be bound cannot be reached
                listen("unix_path", socket.AF_UNIX, str(self._root / "target" / "s"))
                (self._root / "target" / "s").chmod(0o777)
            if os.uname().sysname == "Linux":
                listen("unix_abstract", socket.AF_UNIX, f"\0{self._abstract}")
            yield

    def said(self) -> dict[str, Any]:
        """What the program inside is told to look for."""
        return {
            "port": self._port,
            "socket": "target/s",
            "abstract": self._abstract,
            "file": str(self._file),
            "pid": os.getpid(),
        }

    def callers(self, name: str) -> int:
        """How often a listener was reached so far."""
        count = 0
        with contextlib.suppress(BlockingIOError):
            while name in self._listeners:
                self._listeners[name].accept()[0].close()
                count += 1
        return count


@contextlib.contextmanager
def _variable(value: str) -> Iterator[None]:
    os.environ[_CANARY_VARIABLE] = value
    try:
        yield
    finally:
        os.environ.pop(_CANARY_VARIABLE, None)


# ---------------------------------------------------------------------------------------------- examining


def examine(backend: Backend, *, limits: Limits | None = None, program: Program = _PROBE) -> Examination:
    """Start a backend's sandbox with the probe in it and judge what the probe could do; takes a tenth of a second.

    May be called while an event loop runs: it uses one of its own, in a thread of its own.

    Args:
        backend: what to examine.
        limits: what the sandbox may use; None for the defaults.
        program: what tries; another one than the probe only to examine the judging.
    """
    outcome: list[Examination] = []

    def run() -> None:
        start = time.monotonic()
        try:
            found = asyncio.run(_examine(backend, limits or Limits(device="cpu"), program))
        except (TimeoutError, SandboxError, OSError, asyncio.IncompleteReadError) as error:
            problem = str(error) or f"the probe did not end in {_SECONDS:g} s"
            found = Examination(backend.name, (), problem=problem)
        outcome.append(Examination(found.backend, found.checks, found.stamp, time.monotonic() - start, found.problem))

    thread = threading.Thread(target=run, name=f"examine-{backend.name}")
    thread.start()
    thread.join()
    return outcome[0]


async def _examine(backend: Backend, limits: Limits, program: Program) -> Examination:
    with contextlib.ExitStack() as scratches:
        root, elsewhere = claim_scratch(), claim_scratch()
        scratches.callback(elsewhere.remove)
        scratches.callback(root.remove)
        # As staging leaves it: whoever the program is inside, permissions are not what keeps it from its files.
        root.path.chmod(0o755)
        for name in ("target", "cache"):
            (root.path / name).mkdir()
            (root.path / name).chmod(0o755)
        (root.path / "target" / "config.json").write_text("{}", encoding="ascii")
        (root.path / "target" / "config.json").chmod(0o444)
        canaries = _Canaries(root.path, elsewhere.path)
        with canaries.listening():
            with _variable(canaries.variable):
                launched = await backend.launch(root.path, limits, program)
            try:
                got = await asyncio.wait_for(_ask(launched, canaries.said()), _SECONDS)
                seen = _Seen(got, canaries, _outside(launched.pid))
                checks = tuple(_judged(name, what, judge, seen) for name, (what, judge) in CHECKS.items())
            finally:
                launched.kill()
                await launched.wait()
                launched.close()
        return Examination(backend.name, checks, launched.stamp)


async def _ask(launched: Launched, said: Mapping[str, Any]) -> Mapping[str, Any]:
    launched.send(wire.encode_frame(said))
    parser = wire.FrameParser()
    while data := await launched.replies.read(64 * 1024):
        for value in parser.feed(data):
            return value
    printed = (await launched.diagnostics.read(4096)).decode("utf-8", "replace").strip()
    raise SandboxError(f"the probe gave no answer: {printed.splitlines()[-1][:300] if printed else 'it ended'}")


def _outside(pid: int | None) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in lines if ":\t" in line)


def _judged(name: str, what: str, judge: _Judge, seen: _Seen) -> Check:
    try:
        detail = judge(seen)
    except (KeyError, TypeError) as error:
        detail = f"the probe said nothing usable of it ({error!r})"
    return Check(name, not detail, what, detail)


_EXAMINED: dict[str, Examination] = {}
_EXAMINING = threading.Lock()


def _examined(backend: Backend) -> Examination:
    with _EXAMINING:
        if backend.name not in _EXAMINED:
            _EXAMINED[backend.name] = examine(backend)
        return _EXAMINED[backend.name]


def last_examination(name: str) -> Examination | None:
    """What this process has found of the backend of this name, None where it never came to that."""
    return _EXAMINED.get(name)


def status_of(backend: Backend) -> BackendStatus:
    """Whether a backend works here: what it says itself, then an examination, made once in a process.

    A backend that contains code written by agents works only if everything held.
    """
    status = backend.probe()
    if not status.available:
        return status
    found = _examined(backend)
    if found.problem:
        return BackendStatus(backend.name, available=False, reason=found.problem, stamp=status.stamp)
    stamp = {**found.stamp, "open": found.open}
    if found.open and backend.contains_code:
        reasons = "; ".join(f"{check.what}: {check.detail}" for check in found.checks if not check.held)
        return BackendStatus(backend.name, available=False, reason=f"from inside one could {reasons}", stamp=stamp)
    return BackendStatus(backend.name, available=True, reason=_words(status.reason, found), stamp=stamp)


def _words(reason: str, found: Examination) -> str:
    if not found.open:
        return reason
    return "; ".join(one for one in (reason, f"not prevented: {', '.join(found.open)}") if one)
