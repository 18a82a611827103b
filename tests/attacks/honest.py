"""Whether a stamp says what the kernel says of the running processes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.attacks.sandboxed import status_of

__all__ = ["contradictions"]

_LIMITS = {
    "as": "Max address space",
    "core": "Max core file size",
    "fsize": "Max file size",
    "memlock": "Max locked memory",
    "nofile": "Max open files",
    "nproc": "Max processes",
}
_NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


def contradictions(stamp: Mapping[str, Any], process: int) -> dict[str, tuple[Any, Any]]:
    """What the stamp says and what the kernel says, where that differs."""
    status = status_of(process)
    held = int(status["CapEff"], 16) | int(status["CapPrm"], 16) | int(status["CapAmb"], 16)
    real: dict[str, Any] = {
        "uid": int(status["Uid"].split()[0]),
        "no_new_privs": status["NoNewPrivs"].strip() == "1",
        "seccomp": "allow-list" if status["Seccomp"].strip() == "2" else "none",
        "capabilities": "none" if held == 0 else stamp["capabilities"] if stamp["capabilities"] != "none" else "some",
        "namespaces": sorted(name for name in _NAMESPACES if _namespace(process, name) != _namespace("self", name)),
        "rlimits": {name: _limit(process, name) for name in stamp["rlimits"]},
    }
    return {name: (stamp[name], value) for name, value in real.items() if stamp[name] != value}


def _namespace(process: int | str, name: str) -> str:
    return str(Path(f"/proc/{process}/ns/{name}").readlink())


def _limit(process: int, name: str) -> int:
    text = Path(f"/proc/{process}/limits").read_text(encoding="utf-8")
    line = next(one for one in text.splitlines() if one.startswith(_LIMITS[name]))
    value = line[len(_LIMITS[name]) :].split()[0]
    return -1 if value == "unlimited" else int(value)
