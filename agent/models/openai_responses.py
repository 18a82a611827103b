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
from openai.types.responses import ResponseStreamEvent

from marple.agent.models.adapter import Prompt, Reply, sent_back
from marple.agent.models.failures import BrokenStreamError
from marple.agent.models.openai_adapter import OpenAIAdapter
from marple.agent.models.openai_responses_stream import Gathered, Item, ResponseFailedError
from marple.agent.models.protocol import AssistantMessage, Message, ModelTurn, ToolMessage, UserMessage

__all__ = ["OpenAIResponses"]

Stream: TypeAlias = openai.AsyncStream[ResponseStreamEvent]


class OpenAIResponses(OpenAIAdapter[Stream]):
    """``openai/<model>``. An effort also asks for readable summaries of the reasoning."""

    wire = "openai-responses"
    errors = (openai.OpenAIError, httpx2.HTTPError, json.JSONDecodeError, ResponseFailedError)

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
        gathered = Gathered(request_id=stream.response.headers.get("x-request-id"))
        async for event in stream:
            reply = gathered.add(event, on_delta)
            if reply is not None:
                return reply
        raise BrokenStreamError("the stream ended before the response did")


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
