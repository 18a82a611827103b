"""What each protection of each backend is good for: the attacks that succeed without it."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from marple.sandboxes.backend import Backend

__all__ = ["MUTATIONS", "Mutation", "protections", "weaken"]


@dataclass(frozen=True)
class Mutation:
    """One protection taken away."""

    attacks: tuple[str, ...] = ()
    """All of these have to succeed; none of them is documented as a leak."""
    together: tuple[str, ...] = ()
    """Other protections that hold the same attacks, taken away with it."""
    unnoticed: str = ""
    """Why no attack of the suite can notice, where none can."""


def protections(backend: str) -> frozenset[str]:
    """What can be taken away from a backend."""
    found: frozenset[str] = importlib.import_module(f"marple.sandboxes.{backend}").PROTECTIONS
    return found


def weaken(backend: Backend, without: Iterable[str]) -> Backend:
    """The same backend with protections taken away."""
    weakened: Backend = dataclasses.replace(backend, without=frozenset(without))  # type: ignore[type-var]
    return weakened


_FILTERED = ("other_families", "make_namespaces", "wrong_arch")
_TWICE = "it is set twice: the confining script sets it as well, before anything else runs"

MUTATIONS: Mapping[str, Mapping[str, Mutation]] = {
    "process": {
        "capabilities": Mutation(("capabilities",)),
        "close-fds": Mutation(("fd_socket_inherit",)),
        "env": Mutation(("env_self", "gt_in_memory")),
        "landlock": Mutation(("host_files", "signal_host", "write_ro")),
        "memory": Mutation(("memory_bomb_many",)),
        "rlimits": Mutation(("fd_exhaust",)),
        "seccomp": Mutation(_FILTERED),
    },
    "bubblewrap": {
        "capabilities": Mutation(("capabilities",), together=("uid",)),
        "close-fds": Mutation(("fd_socket_inherit",)),
        "die-with-parent": Mutation(("parent_death",)),
        "disable-userns": Mutation(unnoticed="there is such a namespace only where an ordinary user starts it"),
        "env": Mutation(("env_self", "gt_in_memory")),
        "hidden": Mutation(("install_path",)),
        "landlock": Mutation(("write_ro",), together=("ro-root",)),
        "memory": Mutation(("memory_bomb",)),
        "new-session": Mutation(unnoticed="the launcher is in a session of its own, without a terminal, before it"),
        "processes": Mutation(("fork_bomb",)),
        "procfs": Mutation(("mountinfo", "kernel_info")),
        "rlimits": Mutation(("fd_exhaust",)),
        "ro-root": Mutation(("write_ro",), together=("landlock",)),
        "scratch-size": Mutation(("disk_fill",)),
        "seccomp": Mutation(_FILTERED),
        "uid": Mutation(("start_as_root",)),
        "unshare-cgroup": Mutation(unnoticed="without a procfs nothing inside says the names of control groups"),
        "unshare-ipc": Mutation(("persist_between_runs",), together=("seccomp",)),
        "unshare-net": Mutation(("udp_dns",), together=("seccomp",)),
        "unshare-pid": Mutation(("list_host_procs",)),
        "unshare-uts": Mutation(("host_identity",)),
    },
    "docker": {
        "capabilities": Mutation(("capabilities",), together=("uid",)),
        "env": Mutation(("gt_in_memory",)),
        "hidden": Mutation(("install_path",)),
        "landlock": Mutation(("mountinfo",)),
        "masked-paths": Mutation(("kernel_info",), together=("landlock",)),
        "memory": Mutation(("memory_bomb",)),
        "no-log": Mutation(("printed_to_disk",)),
        "no-new-privs": Mutation(unnoticed=_TWICE),
        "noexec": Mutation(("run_written",)),
        "processes": Mutation(("fork_bomb",)),
        "rlimits": Mutation(("fd_exhaust",)),
        "ro-mounts": Mutation(("write_ro",), together=("landlock",)),
        "ro-root": Mutation(("write_ro",), together=("landlock", "uid")),
        "scratch-size": Mutation(("disk_fill",)),
        "seccomp": Mutation(_FILTERED, together=("seccomp-profile",)),
        "seccomp-profile": Mutation(_FILTERED, together=("seccomp",)),
        "uid": Mutation(("start_as_root",)),
        "unshare-cgroup": Mutation(("cgroup_path",), together=("landlock",)),
        "unshare-ipc": Mutation(("persist_between_runs",), together=("seccomp", "seccomp-profile")),
        "unshare-net": Mutation(("udp_dns",), together=("seccomp", "seccomp-profile")),
        "unshare-pid": Mutation(("list_host_procs",)),
    },
}
