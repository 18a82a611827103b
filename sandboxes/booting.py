"""What the script that confines a sandbox's process from inside is told."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence

from marple.errors import SandboxUnavailableError
from marple.sandboxes.backend import Program
from marple.sandboxes.inside import seccomp

__all__ = ["ENVIRONMENT", "boot_argument", "check_architecture"]

ENVIRONMENT: Mapping[str, str] = {"PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108
"""All variables a program has in a sandbox with a file tree of its own."""


def boot_argument(
    program: Program,
    *,
    root: str,
    sys_path: Sequence[str],
    rlimits: Mapping[str, int],
    read: Sequence[str],
    write: Sequence[str],
    hidden: Sequence[str] = (),
    script: str | None = None,
    environment: Mapping[str, str] = ENVIRONMENT,
    own_tree: bool = True,
    scopes: bool = True,
    required: bool = True,
    without: Collection[str] = (),
) -> str:
    """The argument of ``inside/boot.py``.

    Args:
        program: what runs.
        root: the staged directory, as the program sees it.
        sys_path: put before the interpreter's own.
        rlimits: limit by the name in ``resource``, in lower case without ``RLIMIT_``.
        read: what Landlock lets it read and execute.
        write: what Landlock lets it read and write.
        hidden: real paths in what it may read that it may not; what lies beside them it may, by name.
        script: path of the program's script as it is inside; None for the host's own path of it.
        environment: all its variables.
        own_tree: whether it has a file tree of its own, so that it may change what files of it are like.
        scopes: whether Landlock must keep signals inside, where it is required.
        required: whether it ends when Landlock or the filter cannot be had, or only goes on without.
        without: ``capabilities``, ``landlock``, ``rlimits``, ``seccomp`` or parts of the filter, left out for tests.

    Raises:
        SandboxUnavailableError: it is required, and there is no filter for this architecture.
    """
    if required and "seccomp" not in without:
        check_architecture()
    runs = {"module": program.module} if program.script is None else {"script": script or str(program.script)}
    told = {
        "program": runs,
        "root": root,
        "sys_path": list(sys_path),
        "environment": dict(environment),
        "capabilities": "capabilities" in without,
        "rlimits": {} if "rlimits" in without else dict(rlimits),
        "landlock": None
        if "landlock" in without
        else {"read": list(read), "write": list(write), "hidden": list(hidden), "scopes": scopes}
        | {"required": required},
        "seccomp": None
        if "seccomp" in without
        else {"required": required, "without": sorted(seccomp.PARTS & set(without)), "own_tree": own_tree},
    }
    return json.dumps(told, separators=(",", ":"))


def check_architecture(machine: str | None = None) -> None:
    """Refuse a machine for which there is no filter of system calls.

    Raises:
        SandboxUnavailableError: names it and those there is one for.
    """
    try:
        seccomp.bpf(machine)
    except seccomp.Unsupported as error:
        raise SandboxUnavailableError(f"{error}; use one of these, or a virtual machine of it") from error
