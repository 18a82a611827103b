"""The Anthropic Messages API.

Thinking blocks go back with their signatures, as the API asks. The system prompt, the tools and the last
message carry cache breakpoints, so that each turn reads the turns before it from the cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import anthropic
import httpx2
from anthropic.types import RawMessageStreamEvent

from marple.agent.models.adapter import Adapter, Endpoint, Prompt, Reply, sent_back
from marple.agent.models.anthropic_stream import Block, Gathered
from marple.agent.models.failures import BrokenStreamError
from marple.agent.models.protocol import AssistantMessage, Message, ModelTurn, ToolMessage, UserMessage

__all__ = ["AnthropicMessages"]

Stream: TypeAlias = anthropic.AsyncStream[RawMessageStreamEvent]

_CACHED: Block = {"cache_control": {"type": "ephemeral"}}


class AnthropicMessages(Adapter[Stream]):
    """``anthropic/<model>``. An effort also asks for adaptive thinking with readable summaries."""

    wire = "anthropic-messages"
    efforts = ("none", "low", "medium", "high", "xhigh", "max")
    errors = (anthropic.AnthropicError, httpx2.HTTPError, json.JSONDecodeError)

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        # The key is always explicit: without one the SDK would search the disk for credentials.
        self._client = anthropic.AsyncAnthropic(
            api_key=endpoint.key or "none",
            base_url=endpoint.base_url,
            max_retries=endpoint.max_retries,
            timeout=httpx2.Timeout(endpoint.timeout_seconds, connect=10.0),
            open_telemetry=False,
        )

    def request(self, prompt: Prompt) -> dict[str, Any]:
        """The body of ``POST /v1/messages``."""
        body: dict[str, Any] = {"model": self._endpoint.model, "max_tokens": prompt.max_output_tokens}
        body["messages"] = self._messages(prompt.messages)
        if prompt.system:
            body["system"] = [{"type": "text", "text": prompt.system, **_CACHED}]
        if prompt.tools:
            body["tools"] = [
                {"name": tool.name, "description": tool.description, "input_schema": dict(tool.parameters)}
                for tool in prompt.tools
            ]
            body["tools"][-1] |= _CACHED
        if prompt.effort == "none":
            body["thinking"] = {"type": "disabled"}
        elif prompt.effort is not None:
            body["thinking"] = {"type": "adaptive", "display": "summarized"}
            body["output_config"] = {"effort": prompt.effort}
        return body

    def _messages(self, messages: Sequence[Message]) -> list[Block]:
        """Alternating user and assistant messages; tool results come first in theirs, as the API demands."""
        wire: list[Block] = []
        for message in messages:
            role, blocks = self._blocks(message)
            if wire and wire[-1]["role"] == role:
                wire[-1]["content"] += blocks
            elif blocks:
                wire.append({"role": role, "content": blocks})
        for message_ in wire:
            if message_["role"] == "user":
                message_["content"].sort(key=lambda block: block["type"] != "tool_result")
        if wire and wire[-1]["role"] == "user":
            wire[-1]["content"][-1] |= _CACHED
        return wire

    def _blocks(self, message: Message) -> tuple[str, list[Block]]:
        match message:
            case UserMessage(text):
                return "user", [{"type": "text", "text": text}] if text.strip() else []
            case ToolMessage(call_id, _, text, is_error):
                result = {
                    "type": "tool_result",
                    "tool_use_id": call_id,
                    "content": text,
                    "is_error": is_error,
                }
                return "user", [result]
            case AssistantMessage(turn):
                kept = self._kept(turn)
                blocks = list(kept) if kept is not None else _rebuilt(turn)
                return "assistant", [block for block in blocks if _sendable(block)] if sent_back(turn) else []

    async def _open(self, request: dict[str, Any]) -> Stream:
        stream: Stream = await self._client.messages.create(stream=True, **request)
        return stream

    async def _read(self, stream: Stream, on_delta: Callable[[str], None]) -> Reply:
        gathered = Gathered(request_id=stream.response.headers.get("request-id"))
        async for event in stream:
            if gathered.add(event, on_delta):
                return gathered.reply()
        raise BrokenStreamError("the stream ended before the message did")

    async def close(self) -> None:
        """Release connections; may be called twice."""
        await self._client.close()


def _rebuilt(turn: ModelTurn) -> list[Block]:
    calls = [{"type": "tool_use", "id": call.id, "name": call.name, "input": call.sendable} for call in turn.tool_calls]
    return [{"type": "text", "text": turn.text}, *calls]


def _sendable(block: Block) -> bool:
    """The API refuses blank text, and thinking that was cut off before its signature."""
    if block["type"] == "thinking":
        return bool(block.get("signature"))
    return block["type"] != "text" or bool(block["text"].strip())
