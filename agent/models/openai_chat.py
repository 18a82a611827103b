"""The OpenAI Chat Completions API: OpenAI, vLLM, Ollama, OpenRouter, ``transformers serve``.

The others add fields for reasoning that OpenAI's own type does not have. They are kept under the names they
came by and sent back under the same.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeAlias

import httpx2
import openai
from openai.types.chat import ChatCompletionChunk

from marple.agent.models.adapter import Prompt, Reply, sent_back
from marple.agent.models.openai_adapter import OpenAIAdapter
from marple.agent.models.openai_chat_stream import Gathered, assistant_message
from marple.agent.models.protocol import AssistantMessage, Message, ToolMessage, UserMessage

__all__ = ["OpenAIChat"]

Stream: TypeAlias = openai.AsyncStream[ChatCompletionChunk]


class OpenAIChat(OpenAIAdapter[Stream]):
    """``openai-chat/<model>``, at OpenAI's host or at any ``base_url``."""

    wire = "openai-chat"
    draws = True
    errors = (openai.OpenAIError, httpx2.HTTPError, json.JSONDecodeError)

    def request(self, prompt: Prompt) -> dict[str, Any]:
        """The body of ``POST /v1/chat/completions``."""
        said: list[dict[str, Any]] = [{"role": "system", "content": prompt.system}] if prompt.system else []
        said += [wire for message in prompt.messages for wire in self._wire(message)]
        body: dict[str, Any] = {"model": self._endpoint.model, "messages": said}
        body["stream_options"] = {"include_usage": True}
        # Other servers know only the older name, and some refuse fields they do not know.
        if self._endpoint.own_host:
            body["max_completion_tokens"] = prompt.max_output_tokens
            body["prompt_cache_key"] = prompt.cache_key
        else:
            body["max_tokens"] = prompt.max_output_tokens
        if prompt.tools:
            body["tools"] = [
                {
                    "type": "function",
                    "function": {
                        "name": tool.name,
                        "description": tool.description,
                        "parameters": dict(tool.parameters),
                    },
                }
                for tool in prompt.tools
            ]
        if prompt.effort is not None:
            body["reasoning_effort"] = prompt.effort
        if prompt.draw is not None:
            body |= {"temperature": prompt.draw.temperature, "top_p": prompt.draw.top_p, "seed": prompt.draw.seed}
        return body

    def _wire(self, message: Message) -> list[dict[str, Any]]:
        match message:
            case UserMessage(text):
                return [{"role": "user", "content": text}]
            case ToolMessage(call_id, _, text, is_error):
                content = f"Error: {text}" if is_error else text
                return [{"role": "tool", "tool_call_id": call_id, "content": content}]
            case AssistantMessage(turn):
                said = self._kept(turn) or assistant_message(turn.text, turn.tool_calls)
                empty = not said["content"] and "tool_calls" not in said
                return [said] if sent_back(turn) and not empty else []

    async def _open(self, request: dict[str, Any]) -> Stream:
        stream: Stream = await self._client.chat.completions.create(stream=True, **request)
        return stream

    async def _read(self, stream: Stream, on_delta: Callable[[str], None]) -> Reply:
        gathered = Gathered()
        async for chunk in stream:
            gathered.add(chunk, on_delta)
        request_id = stream.response.headers.get("x-request-id") or gathered.id
        return gathered.reply(request_id)
