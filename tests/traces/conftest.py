"""A fresh run folder for the tests of the trace store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from marple.traces import RunFolder

SPEC = {"case": "hidden-goal/example", "investigator": "prior", "model": None, "seed": 1}


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with RunFolder.create(tmp_path / "runs", "r1", SPEC) as folder:
        folder.append("run_start", {"brief": "Find out."})
        yield folder
