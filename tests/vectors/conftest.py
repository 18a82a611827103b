import pytest
from hypothesis import HealthCheck, settings

from marple.tools.steering.planted import Planted, planted_target
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target

settings.register_profile(
    "vectors", derandomize=True, deadline=None, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)


@pytest.fixture(scope="session")
def planted() -> Planted:
    """A model whose direction carries "good" against "bad" and decides about "lamp"."""
    return planted_target()


@pytest.fixture(scope="session")
def tiny() -> Target:
    """A model in which nothing is planted."""
    return tiny_target()
