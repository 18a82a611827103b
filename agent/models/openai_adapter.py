"""What the two adapters on OpenAI's SDK share: its client and the efforts it takes."""

from __future__ import annotations

from typing import Any, TypeVar

import httpx2
import openai

from marple.agent.models.adapter import Adapter, Endpoint

__all__ = ["OpenAIAdapter"]

StreamT = TypeVar("StreamT", bound=openai.AsyncStream[Any])


class OpenAIAdapter(Adapter[StreamT]):
    """An adapter that speaks through ``openai.AsyncOpenAI``."""

    efforts = ("none", "minimal", "low", "medium", "high", "xhigh", "max")

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._client = openai.AsyncOpenAI(
            api_key=endpoint.key or "none",
            base_url=endpoint.base_url,
            max_retries=endpoint.max_retries,
            timeout=httpx2.Timeout(endpoint.timeout_seconds, connect=10.0),
        )

    async def close(self) -> None:
        """Release connections; may be called twice."""
        await self._client.close()
