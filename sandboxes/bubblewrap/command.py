"""What bubblewrap is told: which file tree the sandbox gets, what is taken from it, and what it starts as.

The first process of the sandbox is the program's own (``--as-pid-1``): no process of bubblewrap, which knows the host's
paths, lives beside it, and where it ends the kernel ends everything else in its process namespace.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from marple.sandboxes.backend import Limits, Program
from marple.sandboxes.bubblewrap.binary import SETPRIV, UNSHARE
from marple.sandboxes.installation import INSIDE, ROOT, Installation, Mount

__all__ = [
    "KERNEL_FILES",
    "PROTECTIONS",
    "SCRATCH",
    "SCRIPT",
    "Tree",
    "gpu_devices",
    "launcher_command",
    "namespaces",
    "starts_apart",
    "program_command",
]

PROTECTIONS = frozenset(
    {
        "unshare-cgroup",
        "unshare-ipc",
        "unshare-net",
        "unshare-pid",
        "unshare-uts",
        "capabilities",
        "close-fds",
        "die-with-parent",
        "disable-userns",
        "env",
        "hidden",
        "landlock",
        "memory",
        "new-session",
        "processes",
        "procfs",
        "rlimits",
        "ro-root",
        "scratch-size",
        "seccomp",
        "uid",
    }
)
"""What can be taken away to see that an attack then succeeds. ``disable-userns`` exists only in a start by an ordinary
user, ``uid`` only in one by root; an ordinary user cannot do without a user namespace."""
SCRIPT = PurePosixPath("/sbx/program.py")
"""Where a program that is a script is, inside."""
SCRATCH = ("/tmp", "/dev/shm", str(ROOT / "cache"))  # noqa: S108 - inside the sandbox
"""Where files can be written, inside."""
KERNEL_FILES = ("/proc/cpuinfo", "/proc/meminfo")
"""All of procfs that is there, inside: libraries count cores and memory by them."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_USER = 60706
_SHM_BYTES = 16 * 2**20
_CACHE_BYTES = 16 * 2**20
_SETTING_UP = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")


def namespaces(*, root: bool, without: Collection[str] = ()) -> tuple[str, ...]:
    """The kinds of namespaces the sandbox has of its own; root needs no user namespace to make the others."""
    kinds = ("cgroup", "ipc", "net", "pid", "uts") if root else ("cgroup", "ipc", "net", "pid", "user", "uts")
    return ("mnt", *(kind for kind in kinds if f"unshare-{kind}" not in without))


def gpu_devices(device: str) -> tuple[Path, ...]:
    """The device files of the graphics processors a worker on this device needs."""
    return () if device == "cpu" else tuple(sorted(Path("/dev").glob("nvidia*")))


def program_command(
    installation: Installation, argument: str, *, uid: int | None, without: Collection[str]
) -> list[str]:
    """What bubblewrap starts: the script that confines itself and then becomes the program.

    Args:
        installation: whose interpreter it is.
        argument: what that script is told.
        uid: the user id to give root up for; None where this process is an ordinary user's.
        without: protections left out.
    """
    python = [str(installation.python_inside), "-I", "-B", str(INSIDE / "boot.py"), argument]
    if uid is None or "uid" in without:
        return python
    drop = ["--reuid", str(uid), "--regid", str(uid), "--clear-groups", "--no-new-privs", "--pdeathsig", "KILL"]
    if "capabilities" not in without:
        drop += ["--inh-caps=-all", "--ambient-caps=-all", "--bounding-set=-all"]
    return [str(SETPRIV), *drop, "--", *python]


def starts_apart(*, by_root: bool, without: Collection[str]) -> bool:
    """Whether bubblewrap itself is started in a process namespace of its own, in which it counts its processes."""
    return by_root and not {"die-with-parent", "unshare-pid"} & set(without)


def launcher_command(binary: Path, *, by_root: bool, without: Collection[str]) -> list[str]:
    """Bubblewrap, and for root what makes the sandbox end with this process.

    The kernel asks whether a dying parent may signal its child. Bubblewrap by root has no capability left and may not,
    once the child has another user id. So it becomes the first process of a process namespace of its own: with that
    one, the kernel ends all others without asking.
    """
    if not starts_apart(by_root=by_root, without=without):
        return [str(binary)]
    with_parent = [str(SETPRIV), "--pdeathsig", "KILL", "--"]
    return [*with_parent, str(UNSHARE), "--pid", "--fork", "--kill-child=KILL", "--", str(binary)]


@dataclass(frozen=True)
class Tree:
    """The file tree of one sandbox, and what else bubblewrap sets up."""

    installation: Installation
    root: Path
    limits: Limits
    program: Program
    by_root: bool
    """Whether this process is root, so that no user namespace is needed."""
    without: frozenset[str] = frozenset()
    empty: tuple[int, ...] = field(default=())
    """Descriptors of empty files, one for each file that is to be covered; see ``covered_files``."""

    @property
    def covered_files(self) -> int:
        """How many empty files it takes."""
        return sum(not mount.source.is_dir() for mount in self._hidden())

    @property
    def devices(self) -> tuple[Path, ...]:
        """The graphics processors it shows."""
        return gpu_devices(self.limits.device)

    @property
    def shows_procfs(self) -> bool:
        """CUDA finds its devices and the process's own memory by procfs, so it gets one of its own namespace."""
        return bool(self.devices) or "procfs" in self.without

    @property
    def variables(self) -> dict[str, str]:
        """What the dynamic linker must be told: an interpreter that was moved does not find its own library."""
        home = self.installation.home_inside
        shared = any((self.installation.home / "lib").glob("libpython*.so*"))
        return {"LD_LIBRARY_PATH": str(home / "lib")} if shared and not home.is_relative_to("/usr") else {}

    @property
    def readable(self) -> list[str]:
        """What the program may read, for Landlock: all there is, by name."""
        home = self.installation.home_inside
        paths = ["/usr", "/sbx", *([] if home.is_relative_to("/usr") else [str(home)]), *_DEVICES]
        paths += ["/proc"] if self.shows_procfs else KERNEL_FILES
        return [*paths, *(str(path) for path in (*self._libraries(), *self.devices) if path.exists())]

    @property
    def writable(self) -> list[str]:
        """What the program may write to, for Landlock."""
        return [*SCRATCH, "/dev/null", *(str(path) for path in self.devices)]

    def options(self) -> list[str]:
        """The options, in the order in which bubblewrap carries them out: what comes later lies on top."""
        variables = [word for name, value in self.variables.items() for word in ("--setenv", name, value)]
        return [*self._isolation(), *self._mounts(), *variables, "--chdir", str(ROOT), *self._read_only()]

    # ---------------------------------------------------------------------------------------- parts

    def _isolation(self) -> Iterator[str]:
        for kind in namespaces(root=self.by_root, without=self.without):
            if kind != "mnt":
                yield f"--unshare-{kind}"
        if "unshare-pid" not in self.without:
            yield "--as-pid-1"
        if "unshare-uts" not in self.without:
            yield from ("--hostname", "sandbox")
        for name in ("die-with-parent", "new-session"):
            if name not in self.without:
                yield f"--{name}"
        yield from self._identity()

    def _identity(self) -> Iterator[str]:
        if not self.by_root:
            yield from ("--uid", str(_USER), "--gid", str(_USER))
            if "disable-userns" not in self.without:
                yield "--disable-userns"
        if "capabilities" in self.without:
            yield from ("--cap-add", "ALL")
            return
        yield from ("--cap-drop", "ALL")
        if self.by_root and "uid" not in self.without:
            for name in _SETTING_UP:
                yield from ("--cap-add", name)

    def _mounts(self) -> Iterator[str]:
        show = "--bind" if "ro-root" in self.without else "--ro-bind"
        for folder in self._folders():
            yield from ("--perms", "0755", "--dir", folder)
        yield from (show, "/usr", "/usr")
        for path in self._libraries():
            yield from self._library(path, show)
        for mount in self.installation.mounts():
            yield from (show, str(mount.source), str(mount.inside))
        yield from self._covers()
        for path in self._staged():
            yield from (show, str(path), str(ROOT / path.name))
        if self.program.script is not None:
            yield from (show, str(self.program.script.resolve()), str(SCRIPT))
        yield from self._kernel()
        yield from self._scratch()

    def _folders(self) -> list[str]:
        """Every directory above something that is shown: bubblewrap by itself makes them for one user only."""
        shown = [*(mount.inside for mount in self.installation.mounts()), ROOT / "cache", SCRIPT]
        shown += [PurePosixPath(str(path)) for path in (*KERNEL_FILES, *_DEVICES, *self.devices, *self._libraries())]
        return sorted({str(folder) for path in shown for folder in path.parents if folder != PurePosixPath("/")})

    def _libraries(self) -> list[Path]:
        places = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache")
        return [Path(place) for place in places if Path(place).exists()]

    def _library(self, path: Path, show: str) -> list[str]:
        real = Path(os.path.realpath(path))
        if path.is_symlink() and real.is_relative_to("/usr"):
            return ["--symlink", str(real), str(path)]
        return [show, str(path), str(path)]

    def _staged(self) -> list[Path]:
        """What lies in the staged directory, each by itself: so that one which only this user may enter works too."""
        return [path for path in sorted(self.root.iterdir()) if path.name != "cache" and not path.is_symlink()]

    def _hidden(self) -> list[Mount]:
        return [] if "hidden" in self.without else self.installation.hidden()

    def _covers(self) -> Iterator[str]:
        empty = iter(self.empty)
        for mount in self._hidden():
            if mount.source.is_dir():
                yield from ("--size", "4096", "--tmpfs", str(mount.inside), "--remount-ro", str(mount.inside))
            else:
                yield from ("--perms", "0444", "--ro-bind-data", str(next(empty)), str(mount.inside))

    def _kernel(self) -> Iterator[str]:
        if self.shows_procfs:
            yield from ("--proc", "/proc")
            if "procfs" not in self.without:
                yield from ("--remount-ro", "/proc")
        else:
            for path in KERNEL_FILES:
                yield from ("--ro-bind", path, path)
        for device in (*_DEVICES, *self.devices):
            yield from ("--dev-bind", str(device), str(device))

    def _scratch(self) -> Iterator[str]:
        sizes = (self.limits.scratch_mib * 2**20, _SHM_BYTES, _CACHE_BYTES)
        for path, size in zip(SCRATCH, sizes, strict=True):
            if "scratch-size" not in self.without:
                yield from ("--size", str(size))
            yield from ("--perms", "1777", "--tmpfs", path)

    def _read_only(self) -> list[str]:
        return [] if "ro-root" in self.without else ["--remount-ro", "/"]
