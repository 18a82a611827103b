"""Empty a directory that someone hostile has filled: any depth, any modes, any kind of entry."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

__all__ = ["wipe"]


def wipe(folder: Path) -> None:
    """Delete everything in a directory, and leave it as it is; nobody may be writing in it any more.

    Goes down one directory at a time and never by a path, which could be too long to name or to hold.

    Raises:
        OSError: something cannot be deleted.
    """
    os.chdir(folder)
    # The modes of a directory decide whether its entries can be listed and deleted.
    Path().chmod(0o700)
    above: list[str] = []
    while True:
        below = _empty_of_files()
        if below is not None:
            os.chmod(below, 0o700)  # noqa: PTH101
            os.chdir(below)
            above.append(below)
        elif above:
            os.chdir("..")
            os.rmdir(above.pop())  # noqa: PTH106
        else:
            break
    os.chdir("/")


def _empty_of_files() -> str | None:
    """Delete the entries of the working directory up to its first directory; the name of that one."""
    with os.scandir(".") as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                return entry.name
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.name)  # noqa: PTH108
    return None
