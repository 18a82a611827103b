from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from marple.sandboxes.backend import Backend, find_backends
from tests.attacks.sandboxed import Arena, HostLoop, start_host
from tests.attacks.world import World
from tests.docker_daemon import docker_daemon

__all__ = ["docker_daemon"]


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """The host's canaries."""
    made = World()
    yield made
    made.close()


@pytest.fixture(scope="module")
def loop(world: World) -> Iterator[HostLoop]:
    """The thread that starts sandboxes."""
    made = start_host(world)
    yield made
    made.close()


@pytest.fixture(scope="module")
def backend(request: pytest.FixtureRequest) -> Backend:
    """The backend that the module names; on CI every one of them has to work."""
    if request.module.BACKEND == "docker":
        request.getfixturevalue("docker_daemon")
    found = find_backends()[request.module.BACKEND]
    status = found.probe()
    if not status.available:
        message = f"the {found.name} backend does not work here: {status.reason}"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    return found


@pytest.fixture(scope="module")
def arena(backend: Backend, world: World, loop: HostLoop) -> Iterator[Arena]:
    """The backend with the world around it."""
    made = Arena(backend, world, loop)
    yield made
    made.close()
