"""Engines that live for the whole area; hypothesis with a fixed seed, so that a run takes the same time every time."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from marple.tools.calls import Call, during
from marple.tools.engine.engine import Engine
from tests.engine.small import engine_on, small_llama

settings.register_profile(
    "engine", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """A test in which an engine goes round forever fails instead."""
    call = Call()
    timer = threading.Timer(120, call.cancelled.set)
    timer.daemon = True
    timer.start()
    with during(call):
        yield
    timer.cancel()


@pytest.fixture(scope="session")
def llama() -> Any:
    """The model of the engines below and of the reference."""
    return small_llama()


@pytest.fixture
def engine() -> Engine:
    """A fresh one with a model of its own (equal weights)."""
    return engine_on(small_llama())
