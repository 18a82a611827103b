"""A daemon that is stopped while a sandbox runs, and the daemon that tests start for themselves."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from marple.sandboxes.backend import Limits, Program
from marple.sandboxes.docker import DockerBackend, DockerOptions
from marple.sandboxes.scratch import claim_scratch
from tests.docker_daemon import answers, own_daemon

PROGRAM = Program("contained", script=Path(__file__).parent / "contained_program.py")

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("dockerd", path="/usr/sbin:/usr/bin:/usr/local/bin") is None,
    reason="starts a dockerd of its own, as root",
)


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


@pytest.fixture
def root() -> Iterator[Path]:
    scratch = claim_scratch()
    (scratch.path / "cache").mkdir()
    scratch.path.chmod(0o555)
    yield scratch.path
    scratch.remove()


# The SDK leaves a socket open that it could not connect.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_daemon_that_stops_ends_the_sandbox_and_nothing_hangs(
    folder: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with own_daemon(folder) as url:
        monkeypatch.setenv("DOCKER_HOST", url)
        launched = await DockerBackend(DockerOptions()).launch(root, Limits(memory_gib=0.25, device="cpu"), PROGRAM)
        os.kill(int((Path(url.removeprefix("unix://")).parent / "pid").read_text()), signal.SIGTERM)
        status = await asyncio.wait_for(launched.wait(), 60)
        assert status == -signal.SIGKILL
        assert await asyncio.wait_for(launched.replies.read(), 30) == b""
        for _ in range(2):
            launched.kill()
            launched.close()
        assert not DockerBackend(DockerOptions()).probe().available
        gc.collect()


def test_tests_share_one_daemon_and_the_last_of_them_ends_it(folder: Path) -> None:
    with own_daemon(folder) as first:
        with own_daemon(folder) as second:
            assert first == second
        assert answers(first)
        place = Path(first.removeprefix("unix://")).parent
        daemon = int((place / "pid").read_text())
    assert not answers(first)
    assert not place.exists()
    assert not Path(f"/proc/{daemon}").exists()
