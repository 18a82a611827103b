"""What a container starts, and what is shown inside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from marple.errors import SandboxUnavailableError
from marple.sandboxes.backend import Limits, Program
from marple.sandboxes.booting import boot_argument
from marple.sandboxes.docker.config import CACHE, SCRATCH, SHARED_MEMORY
from marple.sandboxes.docker.images import Image
from marple.sandboxes.inside import landlock
from marple.sandboxes.installation import CODE, INSIDE, ROOT, Installation, Mount

__all__ = ["SCRIPT", "Wanted"]

SCRIPT = PurePosixPath("/sbx/program.py")
"""Where a program that is a script is, inside."""
_DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")
_KERNEL_FILES = ("/proc/cpuinfo", "/proc/meminfo")
_SCOPES = 6
"""The version of Landlock that keeps signals inside."""
_SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/libx32")


@dataclass(frozen=True)
class Wanted:
    """What was asked of ``launch``, and from what it runs."""

    root: Path
    limits: Limits
    program: Program
    installation: Installation
    image: Image
    gpus: bool = False
    own_kernel: bool = False
    """Whether the runtime brings a kernel of its own (gVisor, Kata), which has no Landlock."""
    without: frozenset[str] = frozenset()

    @property
    def cache(self) -> bool:
        """Whether the staged directory has a place for the temporary files of libraries."""
        return (self.root / "cache").is_dir()

    @property
    def landlock(self) -> int:
        """Version of Landlock that the program inside puts on itself, 0 for none."""
        return 0 if self.own_kernel or "landlock" in self.without else landlock.abi()

    @property
    def weaker(self) -> tuple[str, ...]:
        """What the second layer inside lacks on this machine, in words."""
        if self.own_kernel:
            return ("Landlock is not there in the runtime's own kernel",)
        if not self.landlock:
            return ("no Landlock: the mount table inside shows where the mounted directories lie on the host",)
        if self.landlock < _SCOPES:
            return ("Landlock without signal scope (Linux before 6.12): processes inside can end each other",)
        return ()

    @property
    def command(self) -> tuple[str, ...]:
        """The script that confines itself and then becomes the program."""
        program = self.program
        argument = boot_argument(
            program,
            script=None if program.script is None else str(SCRIPT),
            root=str(ROOT),
            sys_path=self._sys_path,
            rlimits=self._rlimits,
            read=self._readable,
            write=self._writable,
            # The daemon's own filter is there in any case, and looked at from outside.
            required=self.landlock > 0 or "landlock" in self.without,
            # Other sandboxes' processes are out of reach in any case; a worker's from what an agent wrote are not.
            scopes=self.landlock >= _SCOPES and self.program.holds_agent_code,
            without=self.without,
        )
        python = self.image.python or str(self.installation.python_inside)
        return (python, "-I", "-B", str(INSIDE / "boot.py"), argument)

    @property
    def mounts(self) -> tuple[Mount, ...]:
        """What is shown read-only inside."""
        mounts = [Mount(self.root, ROOT)]
        if self.image.python is None:
            mounts += [Mount(Path("/usr"), PurePosixPath("/usr")), *self.installation.mounts()]
        else:
            mounts += self.installation.sources
        if self.program.script is not None:
            mounts.append(Mount(self.program.script, SCRIPT))
        return tuple(mounts)

    @property
    def hidden(self) -> tuple[Mount, ...]:
        """What in it is covered."""
        return tuple(self.installation.hidden()) if self.image.python is None else ()

    @property
    def environment(self) -> dict[str, str]:
        """Variables for the program loader."""
        # An interpreter may find its own library only by the path it was built for, which does not exist inside; the
        # loader would then take another Python's of the same name below /usr.
        home = self.installation.home_inside
        if self.image.python is not None or home.is_relative_to("/usr"):
            return {}
        return {"LD_LIBRARY_PATH": str(home / "lib")}

    def check(self, socket: Path) -> None:
        """Refuse what must not be started.

        Raises:
            SandboxUnavailableError: the daemon's socket lies in what is shown, or code written by an agent would run
                without Landlock on the host's kernel.
        """
        if self.program.holds_agent_code and not self.landlock and not self.own_kernel and not self.without:
            raise SandboxUnavailableError(
                "this kernel has no Landlock, which keeps what an agent writes apart inside the container: use Linux "
                "5.13 or newer with landlock in /sys/kernel/security/lsm, or a runtime with a kernel of its own (runsc)"
            )
        for mount in self.mounts:
            if socket.resolve().is_relative_to(mount.source.resolve()):
                raise SandboxUnavailableError(
                    f"{mount.source} holds the Docker daemon's socket and is not shown inside"
                )

    # ------------------------------------------------------------------------------------ parts

    @property
    def _sys_path(self) -> tuple[str, ...]:
        return self.installation.sys_path_inside if self.image.python is None else (str(CODE),)

    @property
    def _rlimits(self) -> dict[str, int]:
        if "rlimits" in self.without:
            return {}
        return {"core": 0, "fsize": self.limits.file_mib * 2**20, "nofile": self.limits.descriptors}

    @property
    def _readable(self) -> list[str]:
        home = self.installation.home_inside
        own = [] if self.image.python is not None or home.is_relative_to("/usr") else [str(home)]
        return [*_SYSTEM, *own, "/sbx", *_DEVICES, *_KERNEL_FILES, *(("/proc", "/sys") if self.gpus else ())]

    @property
    def _writable(self) -> list[str]:
        scratch = [SCRATCH, SHARED_MEMORY, *([CACHE] if self.cache else [])]
        return [*scratch, "/dev/null", *(str(one) for one in Path("/dev").glob("nvidia*") if self.gpus)]
