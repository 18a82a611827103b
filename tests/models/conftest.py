from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from typing import Any

import pytest

from marple.agent.models import PROVIDERS, Model, open_model
from tests.models.provider_server import ProviderServer

KEY = "sk-test-0123456789abcdef-secret"


@pytest.fixture(autouse=True)
def _only_our_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, address or price list of the person who runs the tests."""
    for provider in PROVIDERS.values():
        monkeypatch.delenv(provider.key_variable, raising=False)
        monkeypatch.delenv(provider.url_variable, raising=False)
    for name in ("MARPLE_PRICES", "ANTHROPIC_AUTH_TOKEN", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    for provider in PROVIDERS.values():
        monkeypatch.setenv(provider.key_variable, KEY)
    return KEY


@pytest.fixture(params=list(PROVIDERS))
def provider(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def serve() -> Iterator[Callable[[Any], ProviderServer]]:
    """Start a server that plays a script; all are closed at the end."""
    servers: list[ProviderServer] = []

    def start(script: Any) -> ProviderServer:
        servers.append(ProviderServer(script).start())
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
async def opened() -> AsyncIterator[Callable[..., Model]]:
    """Open the model ``m`` of a provider against a server; all are closed at the end."""
    async with AsyncExitStack() as stack:

        def connect(provider: str, server: ProviderServer, **options: Any) -> Model:
            model = open_model(f"{provider}/m", base_url=server.base_url(provider), **options)
            stack.push_async_callback(model.close)
            return model

        yield connect
