"""Putting one Responses stream together."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from openai.types.responses import (
    Response,
    ResponseCompletedEvent,
    ResponseFailedEvent,
    ResponseIncompleteEvent,
    ResponseStreamEvent,
)

from marple.agent.models.adapter import Reply
from marple.agent.models.protocol import ToolCall, Usage

__all__ = ["Gathered", "Item", "ResponseFailedError"]

Item: TypeAlias = dict[str, Any]


class ResponseFailedError(Exception):
    """The stream itself reported a failure; shaped like the SDK's errors."""

    def __init__(self, code: str | None, message: str) -> None:
        super().__init__(message)
        self.body = {"code": code or "server_error", "message": message}


@dataclass
class Gathered:
    """The events of one stream, put together."""

    request_id: str | None
    items: list[Item] = field(default_factory=list)

    def add(self, event: ResponseStreamEvent, on_delta: Callable[[str], None]) -> Reply | None:
        """Take in the next event; the last one gives the reply.

        Raises:
            ResponseFailedError: the event says that there will be none.
        """
        if event.type == "response.output_text.delta" or event.type == "response.refusal.delta":
            on_delta(event.delta)
        elif event.type == "response.output_item.done":
            self.items.append(event.item.to_dict(mode="json"))
        elif event.type == "error":
            raise ResponseFailedError(event.code, event.message)
        elif isinstance(event, ResponseCompletedEvent | ResponseIncompleteEvent | ResponseFailedEvent):
            response = event.response
            # Servers that store nothing may send the items only one by one.
            items = [item.to_dict(mode="json") for item in response.output or []] or self.items
            reply = _reply(response, items)
            reply.request_id = self.request_id or response.id
            return reply
        return None


def _reply(response: Response, items: list[Item]) -> Reply:
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
