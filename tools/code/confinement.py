"""The confinement of the processes that a call starts: Landlock domains with signals kept inside.

The rules are made by the script that confines every sandbox's program, which lies beside the tools and imports nothing
of Marple; it is loaded by its path.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import marple
import marple.tools

__all__ = ["Confinement", "Unconfined", "is_out_of_reach", "open_confinement"]

_SIGNAL_SCOPE_ABI = 6
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/proc/cpuinfo", "/proc/meminfo")


class Unconfined(Exception):
    """A protection that code written by an agent must not run without is not there."""


@dataclass(frozen=True)
class Confinement:
    """What a call's processes may read and write, and how they are kept to it."""

    landlock: ModuleType
    read: tuple[str, ...]
    write: tuple[str, ...] = ("/dev/null",)
    filter: Callable[[], None] | None = None
    """Denies the changes of files that Landlock does not mediate; None where there is no such filter."""

    def keep_attributes(self) -> None:
        """Deny this process and all it will start changes of modes, times and attributes of files.

        Directories that outlive the call can belong to the code's own user: what it left on them, the next would find.

        Raises:
            Unconfined: the kernel refused the filter.
        """
        if self.filter is None:
            return
        try:
            self.filter()
        except OSError as error:
            raise Unconfined(f"seccomp: {error}") from error

    def enter(self, workplace: Path) -> None:
        """Confine this process and all it will start to a domain of its own, with one directory to write in.

        Raises:
            Unconfined: the kernel did not take all of it.
        """
        try:
            done = self.landlock.restrict(list(self.read), [*self.write, str(workplace)])
        except OSError as error:
            raise Unconfined(f"Landlock: {error}") from error
        if not done["scopes"]:
            raise Unconfined("Landlock here keeps no signals inside, whatever version it says it has")


def open_confinement(inside: Path, *, devices: Sequence[str] = ()) -> Confinement:
    """The confinement for code on this machine.

    Args:
        inside: the directory with ``landlock.py``.
        devices: of an accelerator, to be read and written.

    Raises:
        Unconfined: the kernel has no Landlock, or none that keeps signals inside.
    """
    landlock = _load(inside / "landlock.py")
    abi = landlock.abi()
    if abi < _SIGNAL_SCOPE_ABI:
        has = f"Landlock version {abi}" if abi else "no Landlock"
        raise Unconfined(
            f"code written by an agent needs Landlock with signal scope (version {_SIGNAL_SCOPE_ABI}, Linux 6.12), and "
            f"this kernel has {has}; the other tools work"
        )
    there = [path for path in devices if Path(path).exists()]
    read = dict.fromkeys([*_SYSTEM, *_DEVICES, *there, *_libraries()])
    readable = tuple(path for path in read if Path(path).exists())
    return Confinement(landlock, readable, ("/dev/null", *there), _attribute_filter(inside))


def _attribute_filter(inside: Path) -> Callable[[], None]:
    sys.path.insert(0, str(inside))
    try:
        seccomp = _load(inside / "seccomp.py")
    finally:
        sys.path.remove(str(inside))
        sys.modules.pop("syscalls", None)
    try:
        program = seccomp.bpf(own_tree=False)
    except seccomp.Unsupported as error:
        raise Unconfined(str(error)) from error
    return lambda: seccomp.install(program)


def is_out_of_reach(pid: int) -> bool:
    """Whether this process may not send a signal to that one, by trying one that does nothing."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except ProcessLookupError:
        return False
    return False


def _libraries() -> list[str]:
    paths = sysconfig.get_paths()
    folders = [paths[kind] for kind in ("stdlib", "platstdlib", "purelib", "platlib")]
    folders += [sys.prefix, sys.base_prefix, *filter(None, sys.path), *marple.__path__, *marple.tools.__path__]
    return [str(Path(folder).resolve()) for folder in folders]


def _load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"marple_{path.stem}", path)
    if spec is None or spec.loader is None or not path.is_file():
        raise Unconfined(f"the script {path.name} that confines code is not there")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
