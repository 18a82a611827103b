"""Engines that live for the whole area; hypothesis with a fixed seed, so that a run takes the same time every time."""

import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, settings

from marple.tools.calls import Call, during
from marple.tools.engine.engine import Engine
from tests.engine.small import engine_on, small_llama

settings.register_profile(
    "engine", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


PATIENCE = 300.0
"""Seconds for one test, beneath pytest's own limit."""


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    # For models this small a second thread has nothing to do, and on a busy machine all wait for it: ten times as long.
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def patience() -> Iterator[None]:
    """A test in which an engine goes round forever fails instead, and says so."""
    call = Call()
    timer = threading.Timer(PATIENCE, call.cancelled.set)
    timer.daemon = True
    timer.start()
    try:
        with during(call):
            yield
    finally:
        timer.cancel()
    assert not call.cancelled.is_set(), f"not through after {PATIENCE:.0f} s, so its calls were cancelled"


@pytest.fixture(scope="session")
def llama() -> Any:
    """The model of the engines below and of the reference."""
    return small_llama()


@pytest.fixture
def engine() -> Engine:
    """A fresh one with a model of its own (equal weights)."""
    return engine_on(small_llama())
