"""The repository as its guard tests see it."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root folder."""
    return ROOT


@pytest.fixture(scope="session")
def configuration(root: Path) -> dict[str, Any]:
    """The content of pyproject.toml."""
    return tomllib.loads((root / "pyproject.toml").read_text())


@pytest.fixture(scope="session")
def files(root: Path) -> list[Path]:
    """The repository's files: what git tracks and what it would, relative to the root."""
    listed = subprocess.run(
        # Whoever owns the checkout: CI often runs as another user.
        ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        check=True,
    )
    names = {name for name in listed.stdout.decode().split("\0") if name}
    return sorted(Path(name) for name in names if (root / name).is_file())


@pytest.fixture(scope="session")
def folders(configuration: dict[str, Any]) -> dict[str, str]:
    """The folder of each top package: `marple.tools` is in `tools`."""
    mapping: dict[str, str] = configuration["tool"]["setuptools"]["package-dir"]
    return mapping
