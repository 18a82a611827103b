from pathlib import Path

import pytest

from marple.tools.target.target import Target
from marple.tools.target.tiny import make_tiny_checkpoint, tiny_target


@pytest.fixture(scope="session")
def tiny() -> Target:
    """A target without reference."""
    return tiny_target()


@pytest.fixture(scope="session")
def planted() -> Target:
    """A target that says "lamp" too often, beside a reference that does not."""
    return tiny_target(favour={"lamp": 3.0}, reference=tiny_target())


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A model directory on disk."""
    return make_tiny_checkpoint(tmp_path / "model")
