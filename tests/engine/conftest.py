"""Engines that live for the whole area; hypothesis with a fixed seed, so that a run takes the same time every time."""

from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from marple.tools.engine.engine import Engine
from tests.engine.small import engine_on, small_llama

settings.register_profile(
    "engine", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.fixture(scope="session")
def llama() -> Any:
    """The model of the engines below and of the reference."""
    return small_llama()


@pytest.fixture(scope="session")
def alone(llama: Any) -> Engine:
    """For requests one at a time, its caches emptied in between."""
    return engine_on(llama, prefix_bytes=0, result_bytes=0, chunk=4096)


@pytest.fixture
def engine() -> Engine:
    """A fresh one with a model of its own (equal weights)."""
    return engine_on(small_llama())
