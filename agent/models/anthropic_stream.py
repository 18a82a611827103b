"""Putting one Messages stream together.

The SDK's own accumulator raises on malformed tool JSON and completes JSON that was cut off; here both are kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from anthropic.types import RawMessageStreamEvent

from marple.agent.models.adapter import Reply
from marple.agent.models.protocol import Stop, ToolCall, Usage

__all__ = ["Block", "Gathered"]

Block: TypeAlias = dict[str, Any]

_STOPS: dict[str | None, Stop] = {
    "max_tokens": "length",
    "refusal": "refusal",
    "model_context_window_exceeded": "context_overflow",
}


@dataclass
class Gathered:
    """The events of one stream, put together."""

    request_id: str | None
    model: str | None = None
    blocks: list[Block] = field(default_factory=list)
    inputs: dict[int, str] = field(default_factory=dict)
    """The JSON text of each tool call, by its block."""
    counts: dict[str, Any] = field(default_factory=dict)
    stop: Stop = "end"
    stop_detail: str | None = None

    def add(self, event: RawMessageStreamEvent, on_delta: Callable[[str], None]) -> bool:
        """Take in the next event; true after the last one."""
        if event.type == "message_start":
            self.model = event.message.model
            self.counts |= event.message.usage.to_dict(exclude_none=True)
        elif event.type == "content_block_start":
            self.blocks.append(event.content_block.to_dict(mode="json"))
        elif event.type == "content_block_delta":
            self._extend(event.index, event.delta)
            if event.delta.type == "text_delta":
                on_delta(event.delta.text)
        elif event.type == "message_delta":
            self.counts |= event.usage.to_dict(exclude_none=True)
            self.stop = _STOPS.get(event.delta.stop_reason, "end")
            details = event.delta.stop_details
            self.stop_detail = f"{details.category}: {details.explanation}" if details else None
        return event.type == "message_stop"

    def _extend(self, index: int, delta: Any) -> None:
        block = self.blocks[index]
        if delta.type == "text_delta":
            block["text"] += delta.text
        elif delta.type == "thinking_delta":
            block["thinking"] += delta.thinking
        elif delta.type == "signature_delta":
            block["signature"] = delta.signature
        elif delta.type == "input_json_delta":
            self.inputs[index] = self.inputs.get(index, "") + delta.partial_json

    def reply(self) -> Reply:
        """What the whole stream said."""
        calls = []
        for index, block in enumerate(self.blocks):
            if block["type"] == "tool_use":
                raw = self.inputs.get(index) or json.dumps(block["input"])
                call = ToolCall.parse(block["id"], block["name"], raw=raw)
                block["input"] = call.sendable
                calls.append(call)
        thoughts = [block["thinking"] for block in self.blocks if block["type"] == "thinking"]
        return Reply(
            text="\n\n".join(block["text"] for block in self.blocks if block["type"] == "text"),
            thinking=[thought for thought in thoughts if thought],
            calls=calls,
            stop=self.stop,
            stop_detail=self.stop_detail,
            usage=_usage(self.counts),
            content=self.blocks,
            request_id=self.request_id,
            response_model=self.model,
        )


def _usage(counts: dict[str, Any]) -> Usage:
    read, written = counts.get("cache_read_input_tokens", 0), counts.get("cache_creation_input_tokens", 0)
    return Usage(
        # The API counts cached tokens apart from the others.
        input_tokens=counts.get("input_tokens", 0) + read + written,
        output_tokens=counts.get("output_tokens", 0),
        cache_read_input_tokens=read,
        cache_creation_input_tokens=written,
        reasoning_output_tokens=counts.get("output_tokens_details", {}).get("thinking_tokens", 0),
    )
