"""Where a model lies: a directory, or a repository of the hub with a revision and a folder in it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from marple.errors import TargetRefusedError, UsageError
from marple.tools.target.checkpoint import Checkpoint, check_target_dir, find_target

__all__ = ["Source"]

_FOLDER = re.compile(r"[\w.-]+(/[\w.-]+)*\Z")


@dataclass(frozen=True)
class Source:
    """A directory or a hub id.

    Raises:
        UsageError: the folder leads out of the repository.
    """

    name: str
    revision: str | None = None
    """Commit, branch or tag; None is the newest that is cached or can be fetched."""
    folder: str = ""
    """The folder in it that holds the model, where it is not the root."""

    def __post_init__(self) -> None:
        if self.folder and (not _FOLDER.match(self.folder) or ".." in PurePosixPath(self.folder).parts):
            raise UsageError(f"the folder {self.folder!r} of {self.name} must be a path inside it, such as a/b")
        if self.revision is not None and Path(self.name).is_dir():
            raise UsageError(f"{self.name} is a directory and has no revision {self.revision!r}")

    @property
    def pinned(self) -> str:
        """Which revision is meant, in words."""
        return "at no revision: the newest" if self.revision is None else f"at revision {self.revision}"

    def find(self) -> Path:
        """The local directory; fetched from the hub if it is not there.

        Raises:
            TargetRefusedError: it is not there and cannot be fetched.
        """
        path = find_target(self.name, revision=self.revision, folder=self.folder)
        if not path.is_dir():
            raise TargetRefusedError(f"target {self.name!r} has no folder {self.folder!r}")
        return path

    def check(self, *, chat_template: bool = True) -> Checkpoint:
        """What lies there, if it can be loaded safely.

        Raises:
            TargetRefusedError: it cannot, or is not there.
        """
        return check_target_dir(self.find(), chat_template=chat_template)
