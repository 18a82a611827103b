from __future__ import annotations

from pathlib import Path

import pytest

from tests.docker_daemon import docker_daemon

__all__ = ["docker_daemon"]

HERE = Path(__file__).parent


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two tiny models of one family, ``first`` and ``second``."""
    from marple.tools.target.tiny import make_tiny_checkpoint

    folder = tmp_path_factory.mktemp("models")
    make_tiny_checkpoint(folder / "first", seed=1)
    make_tiny_checkpoint(folder / "second", seed=2)
    return folder


@pytest.fixture(scope="session")
def plugin() -> Path:
    return HERE / "plugin_tools.py"


@pytest.fixture(scope="session")
def hostile() -> Path:
    return HERE / "hostile_worker.py"
