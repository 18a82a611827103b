"""The container that is asked for, field by field, and the comparison with the container that was made.

The fields are those of the Docker Engine API ("Create a container"). Whatever the daemon reports back that was not
asked for, and is not nothing, is a difference: a daemon's defaults, a proxy in between or a newer engine cannot add a
mount, a capability or a network without being noticed.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from marple.sandboxes.installation import ROOT, Mount

__all__ = [
    "CACHE",
    "MASKED",
    "PROTECTIONS",
    "SCRATCH",
    "SHARED_MEMORY",
    "UID",
    "WRITABLE",
    "Plan",
    "container_config",
    "differences",
]

UID = 65532
"""User and group inside: nobody's on any common distribution."""
SCRATCH, SHARED_MEMORY, CACHE = "/tmp", "/dev/shm", str(ROOT / "cache")
WRITABLE = (SCRATCH, SHARED_MEMORY, CACHE)
"""The only places that can be written inside."""

PROTECTIONS = frozenset(
    {
        *("unshare-cgroup", "unshare-ipc", "unshare-net", "unshare-pid", "capabilities", "env", "hidden", "landlock"),
        *("masked-paths", "memory", "no-log", "no-new-privs", "noexec", "processes", "rlimits", "ro-mounts", "ro-root"),
        *("scratch-size", "seccomp", "seccomp-profile", "uid"),
    }
)
"""What can be taken away to see that an attack then succeeds. ``seccomp`` is the filter that the program inside puts on
itself, ``seccomp-profile`` the one that the daemon puts on the container."""

MASKED = (
    *("/proc/acpi", "/proc/asound", "/proc/bus", "/proc/cmdline", "/proc/config.gz", "/proc/driver", "/proc/fs"),
    *("/proc/interrupts", "/proc/irq", "/proc/kallsyms", "/proc/kcore", "/proc/keys", "/proc/latency_stats"),
    *("/proc/modules", "/proc/partitions", "/proc/sched_debug", "/proc/scsi", "/proc/swaps", "/proc/sys"),
    *("/proc/sysrq-trigger", "/proc/timer_list", "/proc/timer_stats", "/proc/version", "/dev/mqueue", "/sys"),
)
"""Parts of the kernel's file trees that are covered: they say things of the host, or can change them."""
_NEEDED_BY_GPUS = frozenset({"/proc/driver", "/sys"})
_OVERMOUNTED = tuple(PurePosixPath("/etc") / name for name in ("hostname", "hosts", "resolv.conf"))
_ENVIRONMENT: Mapping[str, str] = {"HOME": "/tmp", "LANG": "C.UTF-8", "PATH": "/usr/bin"}
_MIB = 2**20


@dataclass(frozen=True)
class Plan:
    """Everything that differs between one container and another."""

    image: str
    """Id of the image."""
    command: tuple[str, ...]
    mounts: tuple[Mount, ...]
    """What is shown read-only."""
    hidden: tuple[Mount, ...]
    """What in it is covered with nothing."""
    nothing: Path
    """An empty file to cover files with."""
    empty: Path
    """An empty directory to cover directories with."""
    memory: int
    """Bytes, all processes and temporary files together."""
    processes: int
    descriptors: int
    file_bytes: int
    scratch_bytes: int
    seccomp: str
    """The system call filter, as JSON text."""
    labels: Mapping[str, str]
    runtime: str
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables beside the fixed ones, for the program loader."""
    image_environment: tuple[str, ...] = ()
    image_labels: Mapping[str, str] | None = None
    cache: bool = True
    """Whether the staged directory has a place for temporary files of libraries."""
    gpus: bool = False
    limits_swap: bool = True
    """Whether the daemon can limit swap."""
    landlock: int = 0
    """Version of Landlock that the program inside puts on itself before it starts; 0 for none."""
    own_kernel: bool = False
    """Whether the runtime brings a kernel of its own."""
    weaker: tuple[str, ...] = ()
    """What the second layer inside lacks, in words."""
    without: Collection[str] = frozenset()


def container_config(plan: Plan) -> dict[str, Any]:
    """The body of the request that creates the container."""
    has = _Has(plan.without)
    return {
        "Image": plan.image,
        "Entrypoint": list(plan.command),
        "Cmd": [],
        "Env": _environment(plan, has),
        "User": f"{UID}:{UID}" if has("uid") else "0:0",
        "WorkingDir": SCRATCH,
        "Hostname": "sbx",
        "Domainname": "",
        "Labels": {**(plan.image_labels or {}), **plan.labels},
        "StopSignal": "SIGKILL",
        "Healthcheck": {"Test": ["NONE"]},
        "Tty": False,
        "OpenStdin": True,
        # The end of the host's process is the end of the container's standard input.
        "StdinOnce": True,
        **dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr"), True),
        "HostConfig": _host_config(plan, has),
    }


def differences(config: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """Where the container that was made is not the one that was asked for; each names the field.

    Args:
        config: from ``container_config``.
        found: as ``docker inspect`` shows the container.
    """
    asked = {name: value for name, value in config.items() if name != "HostConfig"}
    asked["Env"] = sorted(asked["Env"])
    got = dict(found["Config"])
    got["Env"] = sorted(got.get("Env") or ())
    host = found["HostConfig"]
    binds = sorted((one["Target"], one["Source"], not one["ReadOnly"]) for one in config["HostConfig"]["Mounts"])
    shown = sorted((one["Destination"], one.get("Source", ""), one["RW"]) for one in found.get("Mounts") or ())
    return [
        *_differ("Config", asked, got),
        *_differ("HostConfig", config["HostConfig"], host),
        *([] if binds == shown else [f"Mounts: {_missing_first(binds, shown)}"]),
    ]


class _Has:
    """Whether a protection is in force."""

    def __init__(self, without: Collection[str]) -> None:
        unknown = set(without) - PROTECTIONS
        if unknown:
            raise ValueError(f"no protections of the Docker backend: {', '.join(sorted(unknown))}")
        self._without = without

    def __call__(self, protection: str) -> bool:
        return protection not in self._without


def _host_config(plan: Plan, has: _Has) -> dict[str, Any]:
    masked = [path for path in MASKED if not (plan.gpus and path in _NEEDED_BY_GPUS)]
    return {
        "NetworkMode": "none" if has("unshare-net") else "host",
        "ReadonlyRootfs": has("ro-root"),
        "Privileged": False,
        "CapDrop": ["ALL"] if has("capabilities") else [],
        "CapAdd": [],
        "SecurityOpt": [
            *(["no-new-privileges"] if has("no-new-privs") else []),
            f"seccomp={plan.seccomp if has('seccomp-profile') else 'unconfined'}",
            # Docker adds it by itself to a container that shares these.
            *([] if has("unshare-pid") and has("unshare-ipc") else ["label=disable"]),
        ],
        "IpcMode": "none" if has("unshare-ipc") else "host",
        "PidMode": "" if has("unshare-pid") else "host",
        "CgroupnsMode": "private" if has("unshare-cgroup") else "host",
        "MaskedPaths": masked if has("masked-paths") else ["/proc/kcore"],
        "ReadonlyPaths": ["/proc/sysrq-trigger"],
        # An init of Docker's, so that what loses its parent is reaped and a signal ends the worker.
        "Init": True,
        "Runtime": plan.runtime,
        "Mounts": _mounts(plan, has),
        "Tmpfs": _temporary(plan, has),
        "ShmSize": 16 * _MIB,
        "PidsLimit": plan.processes if has("processes") else None,
        **_memory(plan, has),
        "OomScoreAdj": 500,
        "Ulimits": _ulimits(plan) if has("rlimits") else [],
        "LogConfig": {"Type": "none" if has("no-log") else "json-file", "Config": {}},
        "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0},
        "AutoRemove": False,
        "PublishAllPorts": False,
        "DeviceRequests": [{"Driver": "", "Count": -1, "Capabilities": [["gpu"]]}] if plan.gpus else [],
    }


def _environment(plan: Plan, has: _Has) -> list[str]:
    brought = dict(one.split("=", 1) for one in plan.image_environment if "=" in one)
    own = {**_ENVIRONMENT, **plan.environment}
    environment = {**brought, **own} if has("env") else {**brought, **os.environ, **own}
    return [f"{name}={value}" for name, value in sorted(environment.items())]


def _mounts(plan: Plan, has: _Has) -> list[dict[str, Any]]:
    shown = list(plan.mounts)
    if has("hidden"):
        shown += [Mount(plan.empty if one.source.is_dir() else plan.nothing, one.inside) for one in plan.hidden]
        shown += [Mount(plan.nothing, path) for path in _OVERMOUNTED]
    return [
        {
            "Type": "bind",
            "Source": os.path.realpath(one.source),
            "Target": str(one.inside),
            "ReadOnly": has("ro-mounts"),
            # What is mounted below a directory would come along, and writable.
            "BindOptions": {"Propagation": "rprivate", "NonRecursive": True},
        }
        for one in shown
    ]


def _temporary(plan: Plan, has: _Has) -> dict[str, str]:
    options = "rw,noexec,nosuid,nodev" if has("noexec") else "rw,exec,nosuid,nodev"
    bounded = has("scratch-size")
    size = plan.scratch_bytes if bounded else plan.memory
    inodes = f",nr_inodes={max(1024, plan.scratch_bytes // 8192)}" if bounded else ""
    # Older versions of runc take the mode of the directory underneath whatever is asked for, so that of the cache,
    # which is private, has to belong to the user inside.
    sizes = {SCRATCH: (size, "mode=1777"), SHARED_MEMORY: (16 * _MIB, "mode=1777")}
    if plan.cache:
        sizes[CACHE] = (16 * _MIB, f"mode=0700,uid={UID},gid={UID}")
    return {path: f"{options},size={bytes_}{inodes},{owner}" for path, (bytes_, owner) in sizes.items()}


def _memory(plan: Plan, has: _Has) -> dict[str, int]:
    if not has("memory"):
        return {"Memory": 0, "MemorySwap": 0}
    # A daemon that cannot limit swap says so by turning this into -1.
    return {"Memory": plan.memory, "MemorySwap": plan.memory if plan.limits_swap else -1}


def _ulimits(plan: Plan) -> list[dict[str, Any]]:
    limits = {"core": 0, "fsize": plan.file_bytes, "nofile": plan.descriptors}
    return [{"Name": name, "Hard": value, "Soft": value} for name, value in limits.items()]


# ---------------------------------------------------------------------------------------------- comparison


def _differ(where: str, asked: Any, got: Any) -> list[str]:
    if isinstance(asked, Mapping) and isinstance(got, Mapping):
        return [
            line
            for name in sorted({*asked, *got})
            for line in _differ(f"{where}.{name}", asked.get(name), got.get(name))
        ]
    if _is_list(asked) and _is_list(got) and len(asked) == len(got):
        return [line for n, pair in enumerate(zip(asked, got, strict=True)) for line in _differ(f"{where}[{n}]", *pair)]
    if asked == got or (_is_nothing(asked) and _is_nothing(got)):
        return []
    return [f"{where} is {_shown(got)}, not {_shown(asked)}"]


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)


def _is_nothing(value: Any) -> bool:
    """Whether a field says nothing: absent, empty, or made of such; a name that maps to nothing is something."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if _is_list(value):
        return all(_is_zero(one) for one in value)
    return _is_zero(value)


def _is_zero(value: Any) -> bool:
    return value is None or value == [] or (isinstance(value, bool | int | str) and not value)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:120]}..."


def _missing_first(binds: Sequence[tuple[Any, ...]], shown: Sequence[tuple[Any, ...]]) -> str:
    missing = [one for one in binds if one not in shown]
    if missing:
        return f"{missing[0][0]} is missing or different"
    return f"{next(one for one in shown if one not in binds)[0]} was added"
