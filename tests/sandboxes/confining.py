"""Run a few lines of Python through the script that confines a process."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from marple.sandboxes.backend import Program
from marple.sandboxes.booting import boot_argument

BOOT = Path(__file__).parents[2] / "sandboxes" / "inside" / "boot.py"
READ = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/dev/urandom", sys.base_prefix)
PRELUDE = """
import ctypes, errno, json, os, signal, socket, struct, sys
libc = ctypes.CDLL(None, use_errno=True)
said = {}
def tell(name, call):
    try:
        value = call()
        said[name] = "done"
    except OSError as error:
        said[name] = errno.errorcode[error.errno]
def kernel(name, number, *arguments):
    def call():
        if libc.syscall(number, *(ctypes.c_long(one) for one in arguments)) < 0:
            raise OSError(ctypes.get_errno(), "")
    tell(name, call)
"""


def confined(
    lines: str,
    folder: Path,
    *,
    read: Sequence[str] = (),
    write: Sequence[str] = (),
    without: Collection[str] = (),
    only: bool = False,
    **told: Any,
) -> subprocess.CompletedProcess[str]:
    """Run lines after PRELUDE; what they put into ``said`` is printed as JSON.

    They may read the folder they lie in, unless ``only`` what is named.
    """
    script = folder / "program.py"
    script.write_text(f"{PRELUDE}\n{lines}\nprint(json.dumps(said))\n")
    argument = boot_argument(
        Program("test", script=script),
        root=str(folder),
        sys_path=(),
        rlimits=told.pop("rlimits", {}),
        read=[*READ, *([] if only else [str(folder)]), *read],
        write=write,
        without=without,
        **told,
    )
    command = [sys.executable, "-I", "-B", str(BOOT), argument]
    return subprocess.run(command, env={}, capture_output=True, text=True, timeout=60, check=False)


def outcome(lines: str, folder: Path, **told: Any) -> dict[str, str]:
    """What the lines found, of a process that ended well."""
    ended = confined(lines, folder, **told)
    assert ended.returncode == 0, ended.stderr
    found: dict[str, str] = json.loads(ended.stdout)
    return found
