"""Where a scripted investigation runs changes nothing of what it finds."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from marple.agent.configuration import RunConfig
from marple.agent.run import launch
from marple.sandboxes import backends
from marple.traces import RunFolder
from tests.docker_daemon import docker_daemon

__all__ = ["docker_daemon"]

FOUND = ("answer", "scores", "status")


@pytest.mark.slow
async def test_a_scripted_run_scores_the_same_on_every_backend(
    tmp_path: Path, docker_daemon: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", docker_daemon)
    played = {}
    for name, status in backends().items():
        if not status.available and "CI" not in os.environ:
            continue
        config = RunConfig.of(
            case="hidden-goal/nano-09", investigator="scripted-whitebox", seed=1, runs=tmp_path / name, sandbox=name
        )
        folder = RunFolder.open((await launch(config)).path)
        assert folder.result is not None
        assert folder.result["sandbox"]["backend"] == folder.spec["isolation"]["backend"] == name
        played[name] = {key: folder.result[key] for key in FOUND}
    assert len(played) > 1
    assert played["process"]["scores"]["solved"]
    assert all(found == played["process"] for found in played.values())
