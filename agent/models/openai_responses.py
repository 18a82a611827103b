"""The OpenAI Responses API, without server-side state.

Nothing is stored at the provider: reasoning comes back encrypted and is sent again with the next turn, so
that a run is complete in its own trace.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import httpx2
import openai
from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFailedEvent,
    ResponseIncompleteEvent,
    ResponseStreamEvent,
)

from marple.agent.models.adapter import Adapter, Endpoint, Prompt, Reply, sent_back
from marple.agent.models.failures import BrokenStreamError
from marple.agent.models.protocol import (
    AssistantMessage,
    Message,
    ModelTurn,
    ToolCall,
    ToolMessage,
    Usage,
    UserMessage,
)

__all__ = ["OpenAIResponses"]

Item: TypeAlias = dict[str, Any]
Ended: TypeAlias = ResponseCompletedEvent | ResponseIncompleteEvent | ResponseFailedEvent
Stream: TypeAlias = openai.AsyncStream[ResponseStreamEvent]


class ResponseFailedError(Exception):
    """The stream itself reported a failure; shaped like the SDK's errors."""

    def __init__(self, code: str | None, message: str) -> None:
        super().__init__(message)
        self.body = {"code": code or "server_error", "message": message}


class OpenAIResponses(Adapter[Stream]):
    """``openai/<model>``. An effort also asks for readable summaries of the reasoning."""

    wire = "openai-responses"
    efforts = ("none", "minimal", "low", "medium", "high", "xhigh", "max")
    errors = (openai.OpenAIError, httpx2.HTTPError, json.JSONDecodeError, ResponseFailedError)

    def __init__(self, endpoint: Endpoint) -> None:
        super().__init__(endpoint)
        self._client = openai.AsyncOpenAI(
            api_key=endpoint.key or "none",
            base_url=endpoint.base_url,
            max_retries=endpoint.max_retries,
            timeout=httpx2.Timeout(endpoint.timeout_seconds, connect=10.0),
        )

    def request(self, prompt: Prompt) -> dict[str, Any]:
        """The body of ``POST /v1/responses``."""
        body: dict[str, Any] = {
            "model": self._endpoint.model,
            "input": [item for message in prompt.messages for item in self._items(message)],
            "max_output_tokens": prompt.max_output_tokens,
            "store": False,
            "include": ["reasoning.encrypted_content"],
            "prompt_cache_key": prompt.cache_key,
        }
        if prompt.system:
            body["instructions"] = prompt.system
        if prompt.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "name": tool.name,
                    "description": tool.description,
                    "parameters": dict(tool.parameters),
                    "strict": False,
                }
                for tool in prompt.tools
            ]
        if prompt.effort is not None:
            summary = {} if prompt.effort == "none" else {"summary": "auto"}
            body["reasoning"] = {"effort": prompt.effort, **summary}
        return body

    def _items(self, message: Message) -> list[Item]:
        match message:
            case UserMessage(text):
                return [{"role": "user", "content": text}]
            case ToolMessage(call_id, _, text, is_error):
                output = f"Error: {text}" if is_error else text
                return [{"type": "function_call_output", "call_id": call_id, "output": output}]
            case AssistantMessage(turn):
                kept = self._kept(turn)
                items = list(kept) if kept is not None else _rebuilt(turn)
                # Reasoning that was cut off before its answer is refused.
                while items and items[-1].get("type") == "reasoning":
                    items.pop()
                return items if sent_back(turn) else []

    async def _open(self, request: dict[str, Any]) -> Stream:
        stream: Stream = await self._client.responses.create(stream=True, **request)
        return stream

    async def _read(self, stream: Stream, on_delta: Callable[[str], None]) -> Reply:
        done: list[Item] = []
        async for event in stream:
            if event.type == "response.output_text.delta" or event.type == "response.refusal.delta":
                on_delta(event.delta)
            elif event.type == "response.output_item.done":
                done.append(event.item.to_dict(mode="json"))
            elif event.type == "error":
                raise ResponseFailedError(event.code, event.message)
            elif isinstance(event, Ended):
                response = event.response
                # Servers that store nothing may send the items only one by one.
                items = [item.to_dict(mode="json") for item in response.output or []] or done
                reply = _finished(response, items)
                reply.request_id = stream.response.headers.get("x-request-id") or response.id
                return reply
        raise BrokenStreamError("the stream ended before the response did")

    async def close(self) -> None:
        """Release connections; may be called twice."""
        await self._client.close()


def _finished(response: Response, items: list[Item]) -> Reply:
    if response.error is not None:
        raise ResponseFailedError(response.error.code, response.error.message)
    reply = Reply(content=items, usage=_usage(response), response_model=getattr(response, "model", None))
    texts: list[str] = []
    for item in items:
        if item["type"] == "reasoning":
            parts = [*item.get("summary", []), *(item.get("content") or [])]
            reply.thinking += [part["text"] for part in parts if part.get("text")]
        elif item["type"] == "message":
            texts.append("".join(part.get("text") or part.get("refusal") or "" for part in item["content"]))
            if any(part["type"] == "refusal" for part in item["content"]):
                reply.stop = "refusal"
        elif item["type"] == "function_call":
            call = ToolCall.parse(item["call_id"], item["name"], raw=item["arguments"])
            item["arguments"] = call.raw if call.arguments is not None else json.dumps(call.sendable)
            reply.calls.append(call)
    reply.text = "\n\n".join(texts)
    reason = response.incomplete_details.reason if response.incomplete_details else None
    if reason == "content_filter":
        reply.stop, reply.stop_detail = "refusal", reason
    elif reason is not None and reply.stop == "end":
        reply.stop = "length"
    return reply


def _usage(response: Response) -> Usage:
    if response.usage is None:
        return Usage(reported=False)
    counts = response.usage.to_dict()
    inputs: Any = counts.get("input_tokens_details") or {}
    outputs: Any = counts.get("output_tokens_details") or {}
    return Usage(
        input_tokens=response.usage.input_tokens,
        output_tokens=response.usage.output_tokens,
        cache_read_input_tokens=inputs.get("cached_tokens") or 0,
        cache_creation_input_tokens=inputs.get("cache_write_tokens") or 0,
        reasoning_output_tokens=outputs.get("reasoning_tokens") or 0,
    )


def _rebuilt(turn: ModelTurn) -> list[Item]:
    said: list[Item] = [{"role": "assistant", "content": turn.text}] if turn.text else []
    calls = [
        {
            "type": "function_call",
            "call_id": call.id,
            "name": call.name,
            "arguments": json.dumps(call.sendable),
        }
        for call in turn.tool_calls
    ]
    return said + calls
