"""What a container really gives, as the trace says it, with what this host could verify of it."""

from __future__ import annotations

import time
from typing import Any

from marple.errors import SandboxUnavailableError
from marple.sandboxes import outside
from marple.sandboxes.docker.config import MASKED, UID, WRITABLE, Plan
from marple.sandboxes.docker.daemon import Daemon, warnings

__all__ = ["make_stamp"]

_SECONDS = 3.0
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "uts")
_OF_DOCKER = ("/dev", "/dev/mqueue", "/dev/pts", "/proc", "/sys", "/sys/fs/cgroup")
"""What Docker mounts in every container; all but devices and procfs lies under what is masked."""
_GPUS = "GPUs are handed in: the driver's interface to the kernel can be reached from inside"


def make_stamp(daemon: Daemon, plan: Plan, pid: int | None) -> dict[str, Any]:
    """The stamp of a container that has just been started.

    Args:
        daemon: the daemon that runs it.
        plan: what was asked for; the container was compared with it before it was started.
        pid: its first process, where this host sees it; None, and nothing is verified from outside.

    Raises:
        SandboxUnavailableError: the kernel says of the process that a protection is not in force.
    """
    stamp: dict[str, Any] = {
        "backend": "docker",
        "isolation": "weakened" if plan.without else "reduced" if plan.gpus else "full",
        "env": "host's" if "env" in plan.without else "fixed",
        "filesystem": "own tree",
        "network": "not blocked" if "unshare-net" in plan.without else "none",
        "landlock": plan.landlock,
        "seccomp": "none" if {"seccomp", "seccomp-profile"} <= set(plan.without) else "allow-list",
        "namespaces": list(_NAMESPACES),
        "uid": UID,
        "no_new_privs": True,
        "capabilities": "none",
        "memory": {"by": "container", "bytes": plan.memory},
        "processes": {"by": "container", "most": plan.processes},
        "rlimits": {"core": 0, "fsize": plan.file_bytes, "nofile": plan.descriptors},
        "runtime": plan.runtime,
        "image": plan.image,
        "gpus": plan.gpus,
        "versions": daemon.versions,
        "warnings": [*warnings(daemon), *plan.weaker, *([_GPUS] if plan.gpus else [])],
        "verified": [],
        **({"without": sorted(plan.without)} if plan.without else {}),
    }
    if pid is not None and not plan.own_kernel:
        stamp |= outside.seen(pid) if plan.without else _verify(pid, plan, daemon)
    stamp["verified"] = sorted({"container", *stamp["verified"]})
    return stamp


def _verify(pid: int, plan: Plan, daemon: Daemon) -> dict[str, Any]:
    # runc gives up privileges, installs the filter and clears the environment in the last moments before the program.
    deadline = time.monotonic() + _SECONDS
    while True:
        try:
            return outside.verify(pid, _expected(plan, daemon))
        except SandboxUnavailableError:
            if outside.ended(pid):
                # Whoever waits for it is told how.
                return {}
            if time.monotonic() > deadline:
                raise
        time.sleep(0.002)


def _expected(plan: Plan, daemon: Daemon) -> outside.Expected:
    options = " ".join(daemon.info.get("SecurityOptions") or ())
    mapped = "name=userns" in options or "name=rootless" in options
    names = {one.partition("=")[0] for one in plan.image_environment}
    return outside.Expected(
        namespaces=_NAMESPACES,
        uid=None if mapped else UID,
        variables={*names, *plan.environment, "HOME", "HOSTNAME", "LANG", "PATH"},
        own_tree=True,
        writable={*WRITABLE, *_OF_DOCKER, *MASKED},
        kernel_trees=_OF_DOCKER,
    )
