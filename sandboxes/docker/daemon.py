"""The Docker daemon: whether it can be reached, what it can enforce, and how old it is."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marple.errors import SandboxError, SandboxUnavailableError

__all__ = ["Daemon", "asking", "find_daemon", "problems", "warnings"]

_DEFAULT_URL = "unix:///var/run/docker.sock"
_SECONDS = 60
_FIRST_SECONDS = 5

_ENGINE = (29, 4, 2)
"""The first engine whose default profile denies vsock and kernel-crypto sockets (moby pull request 52494)."""
_RUNC = ((1, 2, 8), (1, 3, 3))
"""The first patch releases without CVE-2025-31133, CVE-2025-52565 and CVE-2025-52881; 1.4.0 has never had them."""


@dataclass(frozen=True)
class Daemon:
    """A daemon that answered."""

    url: str
    api: str
    """Version of the API that was agreed on."""
    info: Mapping[str, Any]
    """As ``docker info`` shows it."""
    version: Mapping[str, Any]
    """As ``docker version`` shows it."""

    def client(self) -> Any:
        """A ``docker.APIClient`` of its own, to be closed by the caller; one for each thread.

        Raises:
            SandboxUnavailableError: the daemon is gone.
        """
        _check_socket(self.url)
        return _sdk().APIClient(base_url=self.url, version=self.api, timeout=_SECONDS)

    @property
    def socket(self) -> Path:
        """Path of the daemon's socket."""
        return Path(self.url.removeprefix("unix://"))

    @property
    def runtimes(self) -> list[str]:
        """The names of its runtimes."""
        return sorted(self.info.get("Runtimes") or {})

    @property
    def versions(self) -> dict[str, str]:
        """Versions of the engine, of containerd and of runc, and of the kernel the containers run on."""
        parts = {one["Name"].lower(): one["Version"] for one in self.version.get("Components") or ()}
        named = {"docker": str(self.version.get("Version", "")), "kernel": str(self.info.get("KernelVersion", ""))}
        return {**named, **{name: parts[name] for name in ("containerd", "runc") if name in parts}}

    @property
    def has_gpus(self) -> bool:
        """Whether it can hand in Nvidia GPUs."""
        devices = self.info.get("DiscoveredDevices") or ()
        return "nvidia" in self.runtimes or any("nvidia" in str(one.get("ID", "")) for one in devices)


def find_daemon() -> Daemon:
    """The daemon that ``DOCKER_HOST`` names, or the one on the default socket.

    Raises:
        SandboxUnavailableError: there is none that this user can talk to; the message says how to get one.
    """
    url = os.environ.get("DOCKER_HOST") or _DEFAULT_URL
    _check_socket(url)
    sdk = _sdk()
    client = None
    try:
        client = sdk.APIClient(base_url=url, version="auto", timeout=_FIRST_SECONDS)
        return Daemon(url, client.api_version, client.info(), client.version())
    except _errors() as error:
        raise _silent(url, error) from error
    finally:
        if client is not None:
            client.close()


@contextlib.contextmanager
def asking(what: str) -> Iterator[None]:
    """Turn whatever goes wrong between here and the daemon into a ``SandboxError`` that says during what."""
    try:
        yield
    except _errors() as error:
        raise SandboxError(f"Docker: {what} failed: {_short(error)}") from error


def problems(info: Mapping[str, Any]) -> list[str]:
    """What a daemon lacks that the sandbox cannot do without, each with how to get it.

    Args:
        info: as ``docker info`` shows it.
    """
    found = []
    if info.get("OSType") != "linux":
        found.append(f"its containers are {info.get('OSType')} ones; switch Docker to Linux containers")
    if not any(str(one).startswith("name=seccomp") for one in info.get("SecurityOptions") or ()):
        found.append("it filters no system calls (seccomp); run an engine and a kernel built with seccomp")
    for key, controller in (("MemoryLimit", "memory"), ("PidsLimit", "pids")):
        if not info.get(key):
            found.append(
                f"it cannot limit {controller}: enable that cgroup controller (on the kernel's command line with "
                f"cgroup_enable={controller}, for rootless Docker by delegating it with systemd)"
            )
    return found


def warnings(daemon: Daemon, *, swap: bool | None = None) -> list[str]:
    """What is weaker than it could be, each with the reason; nothing here stops a start.

    Args:
        daemon: the daemon.
        swap: whether this machine has swap; None looks.
    """
    found = []
    versions = daemon.versions
    if _older(versions["docker"], _ENGINE):
        found.append(
            f"Docker {versions['docker']} is older than {_dotted(_ENGINE)}: its own system call filter allows socket "
            "families that are closed since (CVE-2026-31431); Marple's replaces it, upgrade all the same"
        )
    if "runc" in versions and _old_runc(versions["runc"]):
        found.append(
            f"runc {versions['runc']} is older than 1.2.8, 1.3.3 or 1.4.0, which close ways out of a container "
            "(CVE-2025-31133, CVE-2025-52565, CVE-2025-52881); upgrade, unless your distribution has patched it"
        )
    if not daemon.info.get("SwapLimit") and (_has_swap() if swap is None else swap):
        found.append("this daemon cannot limit swap: a sandbox over its memory limit slows the machine before it ends")
    return found


def _sdk() -> Any:
    try:
        return importlib.import_module("docker")
    except ImportError as error:
        raise SandboxUnavailableError(
            f"the Python package docker is missing ({error}); pip install 'docker>=7.1'"
        ) from error


def _errors() -> tuple[type[BaseException], ...]:
    # What requests raises is an OSError.
    return (_sdk().errors.DockerException, OSError)


def _check_socket(url: str) -> None:
    if not url.startswith("unix://"):
        raise SandboxUnavailableError(
            f"DOCKER_HOST is {url}: the daemon must be on this machine, where the staged directory is; "
            "set DOCKER_HOST to unix://, followed by the path of its socket"
        )
    path = url.removeprefix("unix://")
    # By hand first: a connection that the SDK cannot make is never closed by it.
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(_FIRST_SECONDS)
        try:
            connection.connect(path)
        except FileNotFoundError:
            raise SandboxUnavailableError(
                f"no Docker daemon: {path} does not exist; install Docker Engine and start it (as root: apt install "
                "docker.io, or dnf install moby-engine), or set DOCKER_HOST to unix://, followed by its socket"
            ) from None
        except PermissionError:
            raise SandboxUnavailableError(
                f"this user may not use Docker's socket {path}; become a member of its group ('usermod -aG docker "
                "USER', then log in again; its members are as good as root on this machine) or set up rootless Docker"
            ) from None
        except OSError as error:
            raise _silent(url, error) from error


def _silent(url: str, error: BaseException) -> SandboxUnavailableError:
    return SandboxUnavailableError(
        f"no Docker daemon answers at {url} ({_short(error)}); start it, for example with 'systemctl start docker', "
        "and try 'docker info'"
    )


def _short(error: BaseException) -> str:
    return " ".join(str(error).split())[:400]


def _numbers(version: str) -> tuple[int, ...]:
    found = re.match(r"v?(\d+)\.(\d+)(?:\.(\d+))?", version)
    return tuple(int(one or 0) for one in found.groups()) if found else ()


def _older(version: str, than: tuple[int, ...]) -> bool:
    # A version that cannot be read is not known to be new enough.
    return _numbers(version) < than


def _old_runc(version: str) -> bool:
    numbers = _numbers(version)
    if version.startswith(("1.4.0-rc.1", "1.4.0-rc.2")):
        return True
    return numbers < next((fixed for fixed in _RUNC if fixed[:2] == numbers[:2]), (1, 4, 0))


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _has_swap() -> bool:
    try:
        return len(Path("/proc/swaps").read_text(encoding="ascii").splitlines()) > 1
    except OSError:
        return True
