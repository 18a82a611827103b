from pathlib import Path

import pytest

from marple.tasks.organisms import base_path
from marple.tools.target.loading import load_target
from marple.tools.target.target import Target


@pytest.fixture(scope="session")
def nano() -> Target:
    """The nano base model, which thinks step by step when its system prompt says so."""
    return load_target(Path(base_path()))
