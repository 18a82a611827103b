"""What a user may choose about the Docker backend, and what is refused by name.

Three things can be chosen: an image, a runtime, and whether GPUs are handed in. Everything else that Docker can do to
a container (mounts, networks, privileges, devices, namespaces, environment) would open the sandbox, so there is no way
to ask for it, and asking is an error that says what was asked for.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from marple.errors import SandboxUnavailableError, UnknownNameError

__all__ = ["DockerOptions"]

_PREFIX = "MARPLE_DOCKER_"
_IMAGE = re.compile(r"[a-z0-9][A-Za-z0-9._/:@-]{0,254}")
_RUNTIME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")

_REFUSED: Mapping[str, tuple[str, ...]] = {
    "it would take every wall away": ("privileged",),
    "the sandbox sees the staged directory and what it runs from, nothing else": (
        *("bind", "binds", "mount", "mounts", "volume", "volumes", "volumes_from", "volume_driver", "tmpfs", "v"),
        *("storage_opt", "read_only", "readonly_rootfs", "cgroup_parent", "devices", "device", "device_cgroup_rules"),
    ),
    "the sandbox has no network": (
        *("dns", "dns_opt", "dns_search", "expose", "extra_hosts", "hostname", "domainname", "links", "network"),
        *("network_mode", "networks", "ports", "publish", "publish_all_ports", "mac_address", "net"),
    ),
    "the process has no privileges and cannot gain any": (
        *("cap_add", "cap_drop", "group_add", "security_opt", "seccomp", "apparmor", "user", "sysctls"),
    ),
    "the sandbox shares no namespace with anything": (
        *("cgroupns", "cgroupns_mode", "ipc", "ipc_mode", "pid", "pid_mode", "userns", "userns_mode", "uts_mode"),
        *("isolation", "uts"),
    ),
    "the environment inside is fixed": ("env", "env_file", "environment"),
    "what is started is fixed": ("cmd", "command", "entrypoint", "init", "restart", "restart_policy", "working_dir"),
    "limits are given in Limits": (
        *("cpus", "mem_limit", "memory", "memory_swap", "memswap_limit", "nano_cpus", "oom_kill_disable", "shm_size"),
        *("pids_limit", "ulimit", "ulimits"),
    ),
    "what is printed inside is never written to the host's disk": ("log_config", "log_driver", "log_opt"),
}


@dataclass(frozen=True)
class DockerOptions:
    """Choices for the Docker backend; ``from_environment`` reads them from ``MARPLE_DOCKER_IMAGE`` and so on."""

    image: str | None = None
    """Image that Python and the libraries come from, built from the Dockerfile beside this module; None takes an image
    of empty directories in which the host's own are shown read-only."""
    runtime: str | None = None
    """Runtime of the daemon's, for example ``runsc`` for gVisor; None for its default."""
    gpus: bool | None = None
    """Hand in the GPUs; None does where ``Limits.device`` asks for one and the daemon can."""

    def __post_init__(self) -> None:
        if self.image is not None and not _IMAGE.fullmatch(self.image):
            raise SandboxUnavailableError(f"{self.image!r} is not the name of a Docker image (like marple-sandbox)")
        if self.runtime is not None and not _RUNTIME.fullmatch(self.runtime):
            raise SandboxUnavailableError(f"{self.runtime!r} is not the name of a Docker runtime (like runsc)")

    @classmethod
    def from_settings(cls, settings: Mapping[str, object]) -> DockerOptions:
        """Options from names and values as somebody wrote them.

        Raises:
            SandboxUnavailableError: a setting would open the sandbox; the message says which and why.
            UnknownNameError: there is no such setting.
        """
        known: dict[str, object] = {}
        for name, value in settings.items():
            _refuse(name, value)
            known[_plain(name)] = value
        image, runtime, gpus = (known.get(name) for name in ("image", "runtime", "gpus"))
        return cls(
            image=None if image in (None, "") else str(image),
            runtime=None if runtime in (None, "") else str(runtime),
            gpus=_truth(gpus),
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> DockerOptions:
        """Options from ``MARPLE_DOCKER_IMAGE``, ``MARPLE_DOCKER_RUNTIME`` and ``MARPLE_DOCKER_GPUS`` (``0`` or ``1``).

        Raises:
            SandboxUnavailableError: a variable with this prefix would open the sandbox.
            UnknownNameError: a variable with this prefix means nothing.
        """
        given = os.environ if environment is None else environment
        return cls.from_settings({k.removeprefix(_PREFIX): v for k, v in given.items() if k.startswith(_PREFIX)})


def _refuse(name: str, value: object) -> None:
    if "docker.sock" in str(value) or "containerd.sock" in str(value):
        raise SandboxUnavailableError(
            f"the Docker option {name} = {value!r} is refused: who reaches the daemon's socket is root on this machine"
        )
    plain = _plain(name)
    for reason, names in _REFUSED.items():
        if plain in names:
            raise SandboxUnavailableError(f"the Docker option {name} = {value!r} is refused: {reason}")
    if plain not in ("image", "runtime", "gpus"):
        raise UnknownNameError("Docker option", name, ("image", "runtime", "gpus"))


def _plain(name: str) -> str:
    """``--network-mode``, ``NetworkMode`` and ``NETWORK_MODE`` are all ``network_mode``."""
    name = name.lstrip("-").replace("-", "_")
    return (name if name.isupper() else re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name)).lower()


def _truth(value: object) -> bool | None:
    if value in (None, ""):
        return None
    meanings = {"0": False, "false": False, "none": False, "1": True, "true": True, "all": True}
    if str(value).lower() not in meanings:
        raise SandboxUnavailableError(f"the Docker option gpus is 0 or 1, not {value!r}")
    return meanings[str(value).lower()]
