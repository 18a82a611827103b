"""Where the processes of games meet: a folder with a short path, since a socket's path is short, empty at the end."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def runtime() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="marple-games-", dir="/tmp") as folder:
        yield Path(folder)
