"""The first thing that runs in a sandbox: confine this process, then become the program.

Started as ``python -I -B boot.py JSON`` with the channel on descriptors 0 and 1 and diagnostics on 2, which it does not
touch. What it is told is made by ``marple.sandboxes.booting``. In this order: environment, limits, capabilities, no new
privileges, death with the parent, Landlock, the filter. Then the process calls itself ``marple-confined``, which
the host can see from outside. A protection that is required and cannot be had ends it with status 71 and one line on
descriptor 2.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import resource
import runpy
import select
import signal
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NoReturn

__all__ = ["CONFINED", "NOT_CONFINED", "confine", "main"]

NOT_CONFINED = 71
"""Exit status of a process that could not be confined."""
CONFINED = "marple-confined"
"""The process's name, as the kernel tells it, from when it is confined."""

_DROP_BOUNDING, _AMBIENT, _CLEAR_ALL = 24, 47, 4
_CAPABILITY_VERSION, _MOST_CAPABILITIES = 0x20080522, 64
_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_NAME, _SET_NO_NEW_PRIVS = 1, 4, 15, 38


def confine(told: Mapping[str, Any]) -> None:
    """Give up everything that the program is not to have."""
    os.environ.clear()
    os.environ.update(told["environment"])
    for name, value in told["rlimits"].items():
        _limit(name, value)
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if not told["capabilities"]:
        _drop_capabilities(libc)
    libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(_SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    _leave_if_alone()
    # Loaded before Landlock takes the files away.
    landlock, seccomp = importlib.import_module("landlock"), importlib.import_module("seccomp")
    if told["landlock"] is not None:
        _try(told["landlock"]["required"], lambda: _landlock(landlock, told["landlock"]))
    if told["seccomp"] is not None:
        _try(told["seccomp"]["required"], lambda: _seccomp(seccomp, told["seccomp"]))
    libc.prctl(_SET_NAME, CONFINED.encode(), 0, 0, 0)


def _leave_if_alone() -> None:
    """End here if the host ended before it could have been noticed: then nobody holds the channel any more."""
    poll = select.poll()
    poll.register(0, select.POLLIN)
    if any(events & select.POLLHUP and not events & select.POLLIN for _, events in poll.poll(0)):
        os._exit(0)


def _limit(name: str, value: int) -> None:
    kind = getattr(resource, f"RLIMIT_{name.upper()}", None)
    if kind is None:
        return
    ceiling = resource.getrlimit(kind)[1]
    value = value if ceiling == resource.RLIM_INFINITY else min(value, ceiling)
    resource.setrlimit(kind, (value, value))


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Give up every capability, also those a program could gain; nothing happens where there are none."""
    for one in range(_MOST_CAPABILITIES):
        libc.prctl(_DROP_BOUNDING, one, 0, 0, 0)
    libc.prctl(_AMBIENT, _CLEAR_ALL, 0, 0, 0)
    libc.capset((ctypes.c_uint32 * 2)(_CAPABILITY_VERSION, 0), (ctypes.c_uint32 * 6)())


def _landlock(landlock: ModuleType, told: Mapping[str, Any]) -> None:
    read, listed = landlock.beside(told["read"], told["hidden"])
    done = landlock.restrict(read, told["write"], listed=listed)
    if told["required"] and told["scopes"] and not done["scopes"]:
        raise OSError("Landlock here has no signal scope (it is in Linux from 6.12)")


def _seccomp(seccomp: ModuleType, told: Mapping[str, Any]) -> None:
    seccomp.install(seccomp.bpf(without=told["without"], own_tree=told["own_tree"]))


def _try(required: bool, protect: Callable[[], None]) -> None:
    # Whatever goes wrong, also in a way nobody thought of: without a required protection nothing runs.
    try:
        protect()
    except Exception as error:
        if required:
            _refuse(f"{type(error).__name__}: {error}")


def _refuse(reason: str) -> NoReturn:
    os.write(2, f"confinement: {reason}\n".encode())
    os._exit(NOT_CONFINED)


def main(argument: str) -> None:
    """Confine this process and run the program."""
    told = json.loads(argument)
    here = os.path.dirname(os.path.realpath(__file__))  # noqa: PTH120 - pathlib takes three milliseconds
    sys.path.insert(0, here)
    confine(told)
    sys.path.remove(here)
    for name in ("landlock", "seccomp", "syscalls"):
        sys.modules.pop(name, None)
    sys.path[:0] = told["sys_path"]
    program = told["program"]
    if "script" in program:
        sys.argv = [program["script"], told["root"]]
        runpy.run_path(program["script"], run_name="__main__")
    else:
        importlib.import_module(program["module"]).main(told["root"])


if __name__ == "__main__":
    main(sys.argv[1])
