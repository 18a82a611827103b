"""Opening a model by name: ``anthropic/<model>``, ``openai/<model>``, ``openai-chat/<model>``."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from marple.agent.models.adapter import Adapter, Endpoint
from marple.agent.models.prices import Price, load_prices
from marple.errors import MissingKeyError, UnknownNameError, UsageError

__all__ = ["PROVIDERS", "Provider", "open_model"]


@dataclass(frozen=True)
class Provider:
    """What opening a model of one provider takes."""

    adapter: str
    """``module:class`` of the adapter, imported when a model is opened."""
    key_variable: str
    """Environment variable of the key, required only for the provider's own host."""
    url_variable: str
    """Environment variable of another base URL."""
    base_url: str
    """The provider's own."""


_ANTHROPIC = ("ANTHROPIC_API_KEY", "ANTHROPIC_BASE_URL", "https://api.anthropic.com")
_OPENAI = ("OPENAI_API_KEY", "OPENAI_BASE_URL", "https://api.openai.com/v1")
PROVIDERS: Mapping[str, Provider] = {
    "anthropic": Provider("marple.agent.models.anthropic_messages:AnthropicMessages", *_ANTHROPIC),
    "openai": Provider("marple.agent.models.openai_responses:OpenAIResponses", *_OPENAI),
    "openai-chat": Provider("marple.agent.models.openai_chat:OpenAIChat", *_OPENAI),
}
"""Every provider, by the first part of a model's name."""


def open_model(
    name: str,
    *,
    base_url: str | None = None,
    effort: str | None = None,
    max_retries: int = 4,
    timeout_seconds: float = 600.0,
    prices: Mapping[str, Price] | Path | None = None,
    key_variable: str | None = None,
) -> Adapter[Any]:
    """Open a model; nothing is sent until it is asked to generate.

    Args:
        name: ``provider/model``; what follows the first slash goes to the provider as it is.
        base_url: the API's address; None reads the provider's variable (``ANTHROPIC_BASE_URL``,
            ``OPENAI_BASE_URL``), then takes the provider's own host.
        effort: how hard to think unless a call says otherwise; None keeps the model's own default.
        max_retries: how often a failed request or a broken stream is tried again.
        timeout_seconds: longest silence before a request counts as failed.
        prices: a price list or its path; None reads ``MARPLE_PRICES``. A model not listed has no known cost.
        key_variable: an environment variable whose key goes before the provider's usual one, where it is set.

    Raises:
        UnknownNameError: no such provider.
        MissingKeyError: the provider's own host is meant and its key is not set.
        UsageError: the name has no provider or no model, the address is not HTTP, or this provider lacks an
            option.
    """
    provider_name, model = _split(name)
    provider = PROVIDERS[provider_name]
    base_url = _address(base_url or os.environ.get(provider.url_variable) or provider.base_url)
    own_host = urlsplit(base_url).hostname == urlsplit(provider.base_url).hostname
    key = (_key(key_variable) if key_variable else None) or _key(provider.key_variable)
    if key is None and own_host:
        raise MissingKeyError(
            f"{name} needs a key: set the environment variable {provider.key_variable}"
            " (or name a server that needs none: --base-url for an investigator, --target-base-url for a target)"
        )
    if max_retries < 0 or timeout_seconds <= 0:
        raise UsageError(f"{name}: max_retries must be at least 0 and timeout_seconds above 0")
    listed = prices if isinstance(prices, Mapping) else load_prices(prices)
    endpoint = Endpoint(
        name=name,
        model=model,
        base_url=base_url,
        own_host=own_host,
        key=key,
        effort=effort,
        max_retries=max_retries,
        timeout_seconds=timeout_seconds,
        price=listed.get(name),
    )
    module, adapter = provider.adapter.split(":")
    opened: Adapter[Any] = getattr(importlib.import_module(module), adapter)(endpoint)
    return opened


def _split(name: str) -> tuple[str, str]:
    provider, slash, model = name.partition("/")
    if not slash:
        guess = "anthropic" if name.startswith("claude") else "openai" if name.startswith("gpt") else "openai-chat"
        raise UsageError(
            f"the model {name!r} has no provider; write it as provider/model, for example"
            f" {guess}/{name or 'NAME'} (providers: {', '.join(PROVIDERS)})"
        )
    if provider not in PROVIDERS:
        raise UnknownNameError("model provider", provider, PROVIDERS, hint=f"in the model {name!r}")
    if not model:
        raise UsageError(f"{name!r} names a provider but no model; write for example {provider}/NAME")
    return provider, model


def _address(base_url: str) -> str:
    url = urlsplit(base_url)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise UsageError(f"the base URL {base_url!r} is not an HTTP address, such as http://127.0.0.1:8000/v1")
    return base_url


def _key(variable: str) -> str | None:
    key = os.environ.get(variable, "").strip()
    # The transport's own error for such a header would print the key.
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UsageError(f"the environment variable {variable} holds characters that no key has")
    return key or None
