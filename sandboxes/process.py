"""The ``process`` backend: a process of its own that gives up what it does not need.

No key, no variable, no descriptor of the host reaches the worker; its death or growth does not take the host with it,
and none of its processes outlives it. On Linux it confines itself before anything else runs: Landlock leaves it the
libraries and the staged directory, a filter of system calls leaves it no socket. It keeps the user's own id and sees
that other processes and paths exist, so it never runs code written by an agent, and its stamp says ``reduced``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import platform
import resource
import subprocess
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import marple
from marple.errors import SandboxError, SandboxUnavailableError
from marple.sandboxes.backend import TOOL_WORKER, BackendStatus, Limits, Program
from marple.sandboxes.booting import boot_argument
from marple.sandboxes.inside import landlock, seccomp
from marple.sandboxes.inside.boot import CONFINED, NOT_CONFINED
from marple.sandboxes.installation import Installation, find_installation
from marple.sandboxes.outside import is_filtered, status_fields
from marple.sandboxes.worker_process import WorkerProcess, kill_group

__all__ = ["BACKEND", "PROTECTIONS", "ProcessBackend", "WorkerProcess"]

PROTECTIONS = frozenset({"capabilities", "close-fds", "env", "landlock", "memory", "rlimits", "seccomp"})
"""What can be left out, to see in a test that an attack succeeds then."""

_LINUX = sys.platform == "linux"
_LOOK_SECONDS = 0.002
_SYSTEM = ("/usr", "/lib", "/lib32", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime")
_KERNEL = ("/proc/cpuinfo", "/proc/meminfo", "/sys/devices/system/cpu", "/sys/devices/system/node")
_DEVICES = ("/dev/zero", "/dev/random", "/dev/urandom")
_GPU = ("/proc/driver/nvidia", "/proc/devices", "/sys/module/nvidia", "/sys/bus/pci", "/proc/self")


@dataclass(frozen=True)
class ProcessBackend:
    """Starts the worker as a process in a session of its own, which confines itself."""

    command: Sequence[str] | None = None
    """Another program, started as it is and not confined, with the staged directory as its last argument: for tests of
    the host's side."""
    without: frozenset[str] = frozenset()
    """Protections left out, of ``PROTECTIONS``: for tests, which must see an attack succeed then."""
    name: str = "process"
    preference: int = 10
    contains_code: bool = False

    def __post_init__(self) -> None:
        """Refuse protections that do not exist: a test that leaves nothing out would prove nothing."""
        if self.without - PROTECTIONS:
            raise ValueError(f"no such protections: {sorted(self.without - PROTECTIONS)}")

    def probe(self) -> BackendStatus:
        """Available on every POSIX system; what it gives there depends on the kernel."""
        if os.name != "posix":
            return BackendStatus(self.name, available=False, reason="needs Linux or macOS")
        missing = "" if landlock.abi() else "no Landlock here, so files of this user can be read"
        return BackendStatus(self.name, available=True, reason=missing)

    async def launch(self, root: Path, limits: Limits, program: Program = TOOL_WORKER) -> WorkerProcess:
        """Start the worker with nothing of the host's but three pipes, and wait until it is confined."""
        if program.holds_agent_code:
            raise SandboxUnavailableError(
                "the process backend never runs code written by an agent: it has no file tree and no process list of "
                "its own; use bubblewrap or docker (marple sandbox probe shows what they lack here)"
            )
        process = _popen(self._command(root, limits, program), root, self.without)
        launched = None
        try:
            rlimits = {} if "rlimits" in self.without else _limit(process.pid, limits)
            launched = await WorkerProcess.attach(process, {})
            if self.command is None:
                await _until_confined(process, limits.start_seconds)
                await _refuse_unconfined(launched, self._required)
            launched.stamp = self._stamp(process.pid, rlimits, limits)
            if "memory" not in self.without and _LINUX:
                launched.watch(limits.memory_bytes)
        except BaseException:
            _abandon(process, launched)
            raise
        return launched

    @property
    def _required(self) -> frozenset[str]:
        """The protections of this machine; one of them that fails all the same ends the start."""
        missing = set() if landlock.abi() else {"landlock"}
        if platform.machine() not in seccomp.ARCHITECTURES:
            missing.add("seccomp")
        return PROTECTIONS - self.without - missing

    def _command(self, root: Path, limits: Limits, program: Program) -> list[str]:
        if self.command is not None:
            return [*self.command, str(root)]
        installation = find_installation()
        code, cache = installation.code(), root / "cache"
        gpu = _gpus(limits.device)
        script = [] if program.script is None else [str(program.script)]
        argument = boot_argument(
            program,
            root=str(root),
            sys_path=[str(code), *map(str, installation.site)],
            rlimits={},
            read=[
                *_SYSTEM,
                *_KERNEL,
                *_DEVICES,
                *(_GPU if gpu else ()),
                *map(str, (installation.home, *installation.site, *(one.source for one in installation.sources))),
                str(code),
                str(root),
                *script,
            ],
            hidden=_hidden(installation),
            write=["/dev/null", str(cache), *gpu],
            environment=_environment(cache, inherit="env" in self.without),
            own_tree=False,
            scopes=False,
            required=True,
            without=PROTECTIONS - self._required,
        )
        boot = Path(__file__).parent / "inside" / "boot.py"
        return [str(installation.python), "-I", "-B", str(boot), argument]

    def _stamp(self, pid: int, rlimits: Mapping[str, int], limits: Limits) -> dict[str, Any]:
        """What holds: of the filter and the privileges what the kernel says, of Landlock whether it is there."""
        boots = self.command is None and _LINUX
        abi = landlock.abi() if boots and "landlock" not in self.without else 0
        fields = status_fields(pid)
        filtered = is_filtered(fields)
        watched = _LINUX and "memory" not in self.without
        return {
            "backend": self.name,
            "isolation": "weakened" if self.without else "reduced",
            "env": "host's" if "env" in self.without else "empty",
            "filesystem": "landlock" if abi else "not restricted",
            "network": "socket() denied" if filtered else "not blocked",
            "landlock": abi,
            "seccomp": "allow-list" if filtered else "none",
            "namespaces": [],
            "uid": int(fields["Uid"].split()[0]) if "Uid" in fields else os.getuid(),
            "no_new_privs": fields.get("NoNewPrivs") == "1",
            "capabilities": _capabilities(fields),
            "memory": {"by": "watchdog" if watched else "nothing", "bytes": limits.memory_bytes},
            "processes": {"by": "nothing"},
            "rlimits": dict(rlimits),
            "warnings": _warnings(abi, filtered) if boots else [],
            "verified": ["no_new_privs", "seccomp", *(() if "env" in self.without else _verified(pid))]
            if fields
            else [],
            **({"without": sorted(self.without)} if self.without else {}),
        }


BACKEND = ProcessBackend()


def _warnings(abi: int, filtered: bool) -> list[str]:
    warnings = ["the number of processes is not limited"]
    if not abi:
        warnings.append("no Landlock (in Linux from 5.13): files of this user can be read and written")
    elif not _keeps_signals():
        warnings.append(
            f"Landlock {abi} here has no signal scope (in Linux from 6.12): it can end this user's processes"
        )
    if 0 < abi < 3:
        warnings.append(f"Landlock {abi} lets it empty files that it may read (until Linux 6.2)")
    if not filtered:
        warnings.append("no filter of system calls: the network can be reached")
    return warnings


def _popen(command: Sequence[str], root: Path, without: frozenset[str]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=dict(os.environ) if "env" in without else {},
            cwd=root,
            close_fds="close-fds" not in without,
            start_new_session=True,
            umask=0o077,
        )
    except OSError as error:
        raise SandboxError(f"the worker process could not be started: {error}") from error


def _hidden(installation: Installation) -> list[str]:
    """Marple's folders, of which the tasks hold the truth, and all that tells where it is installed from."""
    found = [importlib.util.find_spec(f"marple.{name}") for name in ("agent", "sandboxes", "tasks", "traces")]
    folders = [place for spec in found if spec is not None for place in spec.submodule_search_locations or ()]
    paths = [*folders, *marple.__path__, *(str(one.source) for one in installation.hidden())]
    return list(dict.fromkeys(map(os.path.realpath, paths)))


def _gpus(device: str) -> list[str]:
    return [] if device == "cpu" else sorted(str(path) for path in Path("/dev").glob("nvidia*"))


def _environment(place: Path, *, inherit: bool) -> dict[str, str]:
    own = {"PATH": "/usr/bin:/bin", "HOME": str(place), "TMPDIR": str(place), "LANG": "C.UTF-8"}
    return {**os.environ, **own} if inherit else own


async def _until_confined(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Wait until the process has called itself confined, or has ended."""
    end = time.monotonic() + seconds
    while _LINUX:
        fields = status_fields(process.pid)
        if fields.get("Name") == CONFINED or not fields or fields.get("State", "Z").startswith(("Z", "X")):
            return
        if time.monotonic() > end:
            raise SandboxError(f"the worker was not confined in {seconds:g} s")
        await asyncio.sleep(_LOOK_SECONDS)


async def _refuse_unconfined(launched: WorkerProcess, required: Collection[str]) -> None:
    """Refuse a process that could not be confined, and one of which the kernel says that it is not.

    Raises:
        SandboxUnavailableError: says which protection is missing.
    """
    assert launched.pid is not None
    fields = status_fields(launched.pid) if _LINUX else {}
    if not _LINUX or fields.get("Name") == CONFINED:
        wrong = ["NoNewPrivs 0"] if _LINUX and fields.get("NoNewPrivs") != "1" else []
        if _LINUX and "seccomp" in required and not is_filtered(fields):
            wrong.append("no system call filter beside the host's own")
        if wrong:
            raise SandboxUnavailableError(f"the worker is not what it must be: the kernel says {', '.join(wrong)}")
    elif await launched.wait() == NOT_CONFINED:
        said = (await launched.diagnostics.read(4096)).decode("utf-8", "replace").strip()
        raise SandboxUnavailableError(f"the worker could not confine itself: {said.removeprefix('confinement: ')}")


@cache
def _keeps_signals() -> bool:
    """Whether Landlock keeps signals inside, found out by trying in another process: some kernels claim it wrongly."""
    tried = [sys.executable, "-I", "-S", "-B", landlock.__file__]
    return landlock.abi() >= 6 and subprocess.run(tried, env={}, check=False, timeout=30).returncode == 0


def _abandon(process: subprocess.Popen[bytes], launched: WorkerProcess | None) -> None:
    kill_group(process)
    if launched is not None:
        launched.close()
        return
    process.wait()
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe is not None:
            pipe.close()


def _capabilities(fields: Mapping[str, str]) -> str:
    held = int(fields.get("CapEff", "0"), 16)
    return f"{held:#x}" if held else "none"


def _verified(pid: int) -> list[str]:
    """The environment, where this user may read it of a process that shows no more of itself.

    Raises:
        SandboxError: it holds something.
    """
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return []
    if environment.strip(b"\0"):
        raise SandboxError("the worker's environment is not empty")
    return ["environment"]


def _limit(pid: int, limits: Limits) -> dict[str, int]:
    """Set the limits from outside, without code between fork and exec; reads back what holds."""
    if not hasattr(resource, "prlimit"):
        return {}
    wanted = {"core": 0, "fsize": limits.file_mib * 2**20, "nofile": limits.descriptors}
    if limits.memory_gib is not None and not _gpus(limits.device):
        wanted["as"] = limits.memory_bytes
    held = {}
    for name, value in wanted.items():
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
