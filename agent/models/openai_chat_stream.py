"""Putting one Chat Completions stream together."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from openai.types.chat import ChatCompletionChunk

from marple.agent.models.adapter import Reply
from marple.agent.models.failures import BrokenStreamError
from marple.agent.models.protocol import Stop, ToolCall, Usage

__all__ = ["Gathered", "assistant_message"]

_STOPS: dict[str, Stop] = {"length": "length", "content_filter": "refusal"}
_REASONING_TEXT = ("reasoning_content", "reasoning")


@dataclass
class Gathered:
    """The deltas of one stream, put together."""

    id: str | None = None
    model: str | None = None
    text: str = ""
    refusal: str = ""
    extra: dict[str, Any] = field(default_factory=dict)
    calls: dict[int, dict[str, str]] = field(default_factory=dict)
    finish: str | None = None
    usage: Usage = field(default_factory=lambda: Usage(reported=False))

    def add(self, chunk: ChatCompletionChunk, on_delta: Callable[[str], None]) -> None:
        """Take in the next chunk."""
        # Compatible servers leave out fields that OpenAI's type requires.
        self.id = getattr(chunk, "id", None) or self.id
        self.model = getattr(chunk, "model", None) or self.model
        if chunk.usage is not None:
            self.usage = _usage(chunk.usage.to_dict())
        for choice in getattr(chunk, "choices", None) or []:
            self.finish = choice.finish_reason or self.finish
            delta = getattr(choice, "delta", None)
            if delta is None:
                continue
            for piece in (delta.content, delta.refusal):
                on_delta(piece or "")
            self.text += delta.content or ""
            self.refusal += delta.refusal or ""
            self._add_reasoning(delta.model_extra or {})
            for call in delta.tool_calls or []:
                self._add_call(call)

    def _add_reasoning(self, extra: Mapping[str, Any]) -> None:
        for name in _REASONING_TEXT:
            if isinstance(extra.get(name), str):
                self.extra[name] = self.extra.get(name, "") + extra[name]
        for detail in extra.get("reasoning_details") or []:
            _merge_detail(self.extra.setdefault("reasoning_details", []), detail)

    def _add_call(self, call: Any) -> None:
        # A server that leaves the index out sends each call whole.
        index = getattr(call, "index", None)
        index = len(self.calls) if index is None else index
        made = self.calls.setdefault(index, {"id": "", "name": "", "raw": ""})
        made["id"] = made["id"] or call.id or ""
        if call.function is not None:
            made["name"] = made["name"] or call.function.name or ""
            made["raw"] += call.function.arguments or ""

    def reply(self, request_id: str | None) -> Reply:
        """What the whole stream said.

        Raises:
            BrokenStreamError: it ended early.
        """
        if self.finish is None or self.finish == "error":
            raise BrokenStreamError("the stream ended without a finish reason")
        calls = [
            ToolCall.parse(made["id"] or f"call_{uuid.uuid4().hex[:16]}", made["name"], raw=made["raw"])
            for _, made in sorted(self.calls.items())
        ]
        thought = next((self.extra[name] for name in _REASONING_TEXT if self.extra.get(name)), "")
        return Reply(
            text=self.text or self.refusal,
            thinking=[thought] if thought else [],
            calls=calls,
            stop="refusal" if self.refusal else _STOPS.get(self.finish, "end"),
            stop_detail=self.finish if self.finish == "content_filter" else None,
            usage=self.usage,
            content=assistant_message(self.text, calls) | self.extra,
            request_id=request_id,
            response_model=self.model,
        )


def _merge_detail(details: list[dict[str, Any]], new: Mapping[str, Any]) -> None:
    """OpenRouter streams each reasoning block in pieces that share ``type`` and ``index``."""
    last = details[-1] if details else {}
    if (last.get("type"), last.get("index")) != (new.get("type"), new.get("index")):
        details.append(dict(new))
        return
    for name, value in new.items():
        if name in ("text", "summary", "data") and isinstance(value, str):
            last[name] = (last.get(name) or "") + value
        elif value is not None:
            last[name] = value


def _usage(counts: Mapping[str, Any]) -> Usage:
    inputs: Mapping[str, Any] = counts.get("prompt_tokens_details") or {}
    outputs: Mapping[str, Any] = counts.get("completion_tokens_details") or {}
    return Usage(
        input_tokens=counts.get("prompt_tokens") or 0,
        output_tokens=counts.get("completion_tokens") or 0,
        cache_read_input_tokens=inputs.get("cached_tokens") or 0,
        cache_creation_input_tokens=inputs.get("cache_write_tokens") or 0,
        reasoning_output_tokens=outputs.get("reasoning_tokens") or 0,
    )


def assistant_message(text: str, calls: Sequence[ToolCall]) -> dict[str, Any]:
    """An assistant message as it goes into the history."""
    said: dict[str, Any] = {"role": "assistant", "content": text}
    if calls:
        said["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                # Chat templates parse the arguments again, so they must be an object even where the model's
                # were not.
                "function": {"name": call.name, "arguments": json.dumps(call.sendable)},
            }
            for call in calls
        ]
    return said
