"""What of this installation a worker needs, and under which neutral names a sandbox with its own file tree shows it.

Inside there is Python at ``/python`` (or where it is, below ``/usr``), the environment's libraries under ``/sbx/site``,
and of Marple the tools and what confines them, under ``/sbx/code``. The tasks, which hold the truth, and every other
trace of Marple among the libraries stay outside: where it is installed says whose machine this is.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import sys
import sysconfig
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

from marple.errors import SandboxError
from marple.sandboxes.scratch import Scratch, claim_scratch

__all__ = ["CODE", "INSIDE", "ROOT", "SITE", "Installation", "Mount", "find_installation"]

ROOT = PurePosixPath("/sbx/root")
"""Where the staged directory is, inside."""
CODE = PurePosixPath("/sbx/code")
"""Where the package ``marple`` is, inside; to be put on ``sys.path``."""
INSIDE = PurePosixPath("/sbx/inside")
"""Where the scripts that confine the process are, inside."""
SITE = PurePosixPath("/sbx/site")
"""Where the environment's libraries are, inside: ``/sbx/site/0``, ``/sbx/site/1``, ..."""

_USR = Path("/usr")
_OUTSIDE = ("marple.agent", "marple.sandboxes", "marple.tasks", "marple.traces")


@dataclass(frozen=True)
class Mount:
    """One file or directory of the host's that is shown read-only inside."""

    source: Path
    inside: PurePosixPath


@dataclass(frozen=True)
class Installation:
    """The interpreter, the libraries and the sources a worker runs from."""

    python: Path
    """The interpreter itself, not a link of a virtual environment."""
    home: Path
    """What the interpreter was installed under (``sys.base_prefix``)."""
    site: tuple[Path, ...]
    """The directories of installed libraries."""
    sources: tuple[Mount, ...]
    """The parts of Marple that run inside."""

    @property
    def home_inside(self) -> PurePosixPath:
        """Where ``home`` is inside: as it is below ``/usr``, which every sandbox shows, else ``/python``."""
        return PurePosixPath(self.home) if self.home.is_relative_to(_USR) else PurePosixPath("/python")

    @property
    def python_inside(self) -> PurePosixPath:
        """Path of the interpreter inside."""
        return self.home_inside / self.python.relative_to(self.home).as_posix()

    @property
    def sys_path_inside(self) -> tuple[str, ...]:
        """What is put before ``sys.path`` inside."""
        return (str(CODE), *(str(SITE / str(number)) for number in range(len(self.site))))

    def mounts(self) -> list[Mount]:
        """Everything that is shown read-only inside beside ``/usr`` and the staged directory, parents first."""
        mounts = [] if self.home.is_relative_to(_USR) else [Mount(self.home, self.home_inside)]
        mounts += [Mount(folder, SITE / str(number)) for number, folder in enumerate(self.site)]
        return [*mounts, *self.sources]

    def hidden(self) -> list[Mount]:
        """What must be covered with nothing inside, because it lies in a shown directory and tells of the host.

        A directory of libraries can be shown twice, where it lies below the interpreter's own. The sources say what is
        covered; directories want an empty directory over them, files an empty file.
        """
        telling = [path for folder in self.site for path in sorted(folder.iterdir()) if _tells(path.name)]
        own = [folder for name in _OUTSIDE if (folder := _folder(name)) and not _below(folder, telling)]
        shown = [Mount(_USR, PurePosixPath(_USR)), *self.mounts()]
        return [
            Mount(path, mount.inside / path.relative_to(mount.source).as_posix())
            for path in (*telling, *own)
            for mount in shown
            if path.is_relative_to(mount.source)
        ]

    def code(self) -> Path:
        """A directory with the package ``marple`` made of links to the parts that run inside, and nothing else of it.

        Made once in a process, removed at its end.
        """
        with _MAKING:
            if self not in _CODE:
                scratch = claim_scratch()
                atexit.register(scratch.remove)
                for mount in self.sources:
                    if mount.inside.is_relative_to(CODE):
                        link = scratch.path / mount.inside.relative_to(CODE)
                        link.parent.mkdir(exist_ok=True)
                        link.symlink_to(mount.source)
                _CODE[self] = scratch
            return _CODE[self].path


def _tells(name: str) -> bool:
    return "marple" in name.lower() or name.startswith("__editable__") or name.endswith(".pth")


def _below(path: Path, folders: Sequence[Path]) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def _folder(name: str) -> Path | None:
    found = importlib.util.find_spec(name)
    places = found.submodule_search_locations if found is not None else None
    return Path(os.path.realpath(next(iter(places)))) if places else None


_MAKING = threading.Lock()
_CODE: dict[Installation, Scratch] = {}


@cache
def find_installation() -> Installation:
    """The installation that this process runs from.

    Raises:
        SandboxError: the interpreter lies in an unusual place.
    """
    python, home = Path(os.path.realpath(sys.executable)), Path(os.path.realpath(sys.base_prefix))
    if not python.is_relative_to(home):
        raise SandboxError(f"the interpreter {python} is not below its prefix {home}; use a virtual environment of it")
    paths = sysconfig.get_paths()
    site = tuple(dict.fromkeys(Path(os.path.realpath(paths[kind])) for kind in ("purelib", "platlib")))
    return Installation(python, home, site, _sources())


def _sources() -> tuple[Mount, ...]:
    # Each folder is looked up, not assumed: an editable installation keeps them apart.
    import marple
    import marple.tools

    package, tools = Path(marple.__path__[0]), Path(marple.tools.__path__[0])
    inside = Path(__file__).parent / "inside"
    return (
        Mount(package / "__init__.py", CODE / "marple" / "__init__.py"),
        Mount(package / "errors.py", CODE / "marple" / "errors.py"),
        Mount(tools, CODE / "marple" / "tools"),
        Mount(inside, INSIDE),
    )
