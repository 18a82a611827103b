"""Whose a container is, and how those are found and removed whose process has ended without removing them.

A container ends by itself when its host process ends, because its standard input does; what is left is a stopped
container. Its labels say which process started it, in terms that no other process can have.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from marple.errors import SandboxError
from marple.sandboxes.docker.daemon import asking

__all__ = ["LABEL", "labels", "owner_is_gone", "remove", "sweep"]

LABEL = "marple.sandbox"
_PID, _STARTED, _SYSTEM, _RUN = "marple.owner", "marple.started", "marple.system", "marple.run"


def labels() -> dict[str, str]:
    """Labels that name this process, and a random token that names the container."""
    pid = os.getpid()
    named = {_PID: str(pid), _STARTED: _started(pid), _SYSTEM: _system(), _RUN: secrets.token_hex(16)}
    return {LABEL: "1", **named}


def owner_is_gone(found: Mapping[str, str]) -> bool:
    """Whether the process that a container's labels name has ended.

    A process of another process namespace of this machine cannot be looked at; its containers are left alone.
    """
    boot, _, namespace = found.get(_SYSTEM, "").partition("/")
    here_boot, _, here_namespace = _system().partition("/")
    if boot != here_boot:
        return True
    if namespace != here_namespace or not found.get(_PID, "").isdecimal():
        return False
    return _started(int(found[_PID])) != found.get(_STARTED)


def sweep(client: Any) -> list[str]:
    """Remove the containers whose process has ended; returns their ids."""
    swept = []
    with asking("looking for containers that were left behind"):
        containers = client.containers(all=True, filters={"label": f"{LABEL}=1"})
    for container in containers:
        if owner_is_gone(container.get("Labels") or {}):
            with contextlib.suppress(SandboxError):
                remove(client, container["Id"])
                swept.append(container["Id"])
    return swept


def remove(client: Any, container: str) -> None:
    """End a container and remove it with everything it wrote; harmless when it is gone or being removed.

    Raises:
        SandboxError: the daemon did not do it.
    """
    try:
        with asking("removing a container"):
            client.remove_container(container, force=True, v=True)
    except SandboxError as error:
        # 404: gone; 409: another removal is under way.
        if getattr(getattr(error.__cause__, "response", None), "status_code", 0) not in (404, 409):
            raise


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks since boot; '' when there is none, '?' where /proc is missing."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except FileNotFoundError:
        return _unseen(pid) if not Path("/proc/self/stat").exists() else ""
    except OSError:
        return ""
    # Field 22 (proc(5)); the second field, the name, may hold blanks and brackets.
    fields = stat.rpartition(")")[2].split()
    # A zombie does nothing any more: only its parent has still to note its end.
    return "" if fields[0] == "Z" else fields[19]


def _unseen(pid: int) -> str:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except PermissionError:
        pass
    return "?"


def _system() -> str:
    """This boot of this machine, and this process namespace."""
    boot = namespace = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        namespace = str(Path("/proc/self/ns/pid").readlink())
    return f"{boot}/{namespace}"
