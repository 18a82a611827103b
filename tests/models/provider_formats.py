"""The three streaming wire formats, as the providers document them: a scripted answer becomes server-sent events."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import count
from typing import Any, Literal

Stop = Literal["end", "length", "refusal", "content_filter", "context_overflow"]
_serial = count(1)


@dataclass(frozen=True)
class Call:
    """A tool call; ``arguments`` as text is sent as it is, malformed or not."""

    name: str
    arguments: Mapping[str, Any] | str
    id: str = ""

    @property
    def raw(self) -> str:
        return self.arguments if isinstance(self.arguments, str) else json.dumps(self.arguments)


@dataclass(frozen=True)
class Answer:
    """One reply of the pretend provider; token counts are in the provider-neutral sense (input includes cache)."""

    text: str = ""
    thinking: str = ""
    calls: tuple[Call, ...] = ()
    stop: Stop = "end"
    input_tokens: int = 100
    output_tokens: int = 20
    cached_tokens: int = 0
    cache_write_tokens: int = 0
    reasoning_tokens: int = 0
    usage: bool = True
    break_after: int | None = None
    """Close the connection after this many events."""
    pause_seconds: float = 0.0
    """Before every event but the first."""
    reasoning_field: str = "reasoning_content"
    """Chat only: the name the server gives its reasoning."""


def pieces(text: str, size: int = 5) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]


def _named(calls: tuple[Call, ...], prefix: str) -> list[tuple[str, Call]]:
    return [(call.id or f"{prefix}_{next(_serial)}", call) for call in calls]


def anthropic_events(answer: Answer, model: str) -> Iterator[tuple[str | None, Any]]:
    """``POST /v1/messages`` with ``stream``: (event name, data)."""

    def event(kind: str, **data: Any) -> tuple[str, Any]:
        return kind, {"type": kind, **data}

    def block(index: int, start: dict[str, Any], deltas: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
        yield event("content_block_start", index=index, content_block=start)
        for delta in deltas:
            yield event("content_block_delta", index=index, delta=delta)
        yield event("content_block_stop", index=index)

    plain = answer.input_tokens - answer.cached_tokens - answer.cache_write_tokens
    usage = {
        "input_tokens": plain,
        "cache_read_input_tokens": answer.cached_tokens,
        "cache_creation_input_tokens": answer.cache_write_tokens,
        "output_tokens": 1,
    }
    message: dict[str, Any] = {"id": f"msg_{next(_serial)}", "type": "message", "role": "assistant", "model": model}
    message |= {"content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    yield event("message_start", message=message)
    yield event("ping")
    index = count()
    if answer.thinking:
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in pieces(answer.thinking)]
        signature = {"type": "signature_delta", "signature": f"sig:{answer.thinking}"}
        start: dict[str, Any] = {"type": "thinking", "thinking": "", "signature": ""}
        yield from block(next(index), start, [*deltas, signature])
        yield from block(next(index), {"type": "redacted_thinking", "data": "opaque=="}, [])
    if answer.text:
        deltas = [{"type": "text_delta", "text": piece} for piece in pieces(answer.text)]
        yield from block(next(index), {"type": "text", "text": ""}, deltas)
    for identifier, call in _named(answer.calls, "toolu"):
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in ["", *pieces(call.raw)]]
        start = {"type": "tool_use", "id": identifier, "name": call.name, "input": {}}
        yield from block(next(index), start, deltas)
    reasons = {"length": "max_tokens", "context_overflow": "model_context_window_exceeded"}
    reasons |= {"refusal": "refusal", "content_filter": "refusal"}
    delta: dict[str, Any] = {
        "stop_reason": reasons.get(answer.stop, "tool_use" if answer.calls else "end_turn"),
        "stop_sequence": None,
    }
    if delta["stop_reason"] == "refusal":
        delta["stop_details"] = {"type": "refusal", "category": "frontier_llm", "explanation": "not allowed"}
    final: dict[str, Any] = {"output_tokens": answer.output_tokens}
    if answer.reasoning_tokens:
        final["output_tokens_details"] = {"thinking_tokens": answer.reasoning_tokens}
    yield event("message_delta", delta=delta, usage=final)
    yield event("message_stop")


def responses_events(answer: Answer, model: str) -> Iterator[tuple[str | None, Any]]:
    """``POST /v1/responses`` with ``stream``: (event name, data)."""
    number = count()

    def event(kind: str, **data: Any) -> tuple[str, Any]:
        return kind, {"type": kind, "sequence_number": next(number), **data}

    response: dict[str, Any] = {
        "id": f"resp_{next(_serial)}",
        "object": "response",
        "created_at": 1_790_000_000,
        "model": model,
        "status": "in_progress",
        "error": None,
        "incomplete_details": None,
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    yield event("response.created", response=response)
    items: list[dict[str, Any]] = []
    if answer.thinking:
        summary = [{"type": "summary_text", "text": answer.thinking}]
        sealed = {"encrypted_content": f"sealed:{answer.thinking}"}
        items.append({"type": "reasoning", "id": f"rs_{next(_serial)}", "summary": summary, **sealed})
    cut = answer.stop in ("length", "content_filter")
    status = "incomplete" if cut else "completed"
    if answer.text:
        part: dict[str, Any] = {"type": "output_text", "text": answer.text, "annotations": []}
        if answer.stop == "refusal":
            part = {"type": "refusal", "refusal": answer.text}
        said = {"type": "message", "id": f"msg_{next(_serial)}", "role": "assistant", "status": status}
        items.append(said | {"content": [part]})
    for identifier, call in _named(answer.calls, "call"):
        made = {"type": "function_call", "id": f"fc_{identifier}", "call_id": identifier, "status": status}
        items.append(made | {"name": call.name, "arguments": call.raw})
    for index, item in enumerate(items):
        yield event("response.output_item.added", output_index=index, item={**item, "status": "in_progress"})
        if item["type"] == "message":
            kind = "refusal" if answer.stop == "refusal" else "output_text"
            where = {"item_id": item["id"], "output_index": index, "content_index": 0}
            for piece in pieces(answer.text):
                yield event(f"response.{kind}.delta", delta=piece, logprobs=[], **where)
        yield event("response.output_item.done", output_index=index, item=item)
    final = response | {"status": status, "output": items}
    if answer.usage:
        final["usage"] = {
            "input_tokens": answer.input_tokens,
            "input_tokens_details": {
                "cached_tokens": answer.cached_tokens,
                "cache_write_tokens": answer.cache_write_tokens,
            },
            "output_tokens": answer.output_tokens,
            "output_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
            "total_tokens": answer.input_tokens + answer.output_tokens,
        }
    if answer.stop == "context_overflow":
        error = {"code": "context_length_exceeded", "message": "Your input exceeds the context window."}
        yield event("response.failed", response=final | {"status": "failed", "error": error, "output": []})
        return
    if cut:
        reason = "max_output_tokens" if answer.stop == "length" else "content_filter"
        yield event("response.incomplete", response=final | {"incomplete_details": {"reason": reason}})
        return
    yield event("response.completed", response=final)


def chat_events(answer: Answer, model: str) -> Iterator[tuple[str | None, Any]]:
    """``POST /v1/chat/completions`` with ``stream``: (None, data), the last one ``[DONE]``."""
    head: dict[str, Any] = {"id": f"chatcmpl-{next(_serial)}", "object": "chat.completion.chunk", "model": model}
    head |= {"created": 1_790_000_000}

    def chunk(delta: dict[str, Any], finish: str | None = None) -> tuple[None, Any]:
        return None, head | {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    if answer.stop == "context_overflow":
        message = "This model's maximum context length is 4096 tokens."
        yield None, {"error": {"code": "context_length_exceeded", "message": message}}
        return
    yield chunk({"role": "assistant", "content": ""})
    for piece in pieces(answer.thinking):
        yield chunk({answer.reasoning_field: piece})
    for piece in pieces(answer.text):
        yield chunk({"refusal" if answer.stop == "refusal" else "content": piece})
    for index, (identifier, call) in enumerate(_named(answer.calls, "call")):
        function = {"name": call.name, "arguments": ""}
        first = {"index": index, "id": identifier, "type": "function", "function": function}
        yield chunk({"tool_calls": [first]})
        for piece in pieces(call.raw):
            yield chunk({"tool_calls": [{"index": index, "function": {"arguments": piece}}]})
    reasons: dict[str, str] = {"length": "length", "content_filter": "content_filter"}
    yield chunk({}, reasons.get(answer.stop, "tool_calls" if answer.calls else "stop"))
    if answer.usage:
        details = {"cached_tokens": answer.cached_tokens, "cache_write_tokens": answer.cache_write_tokens}
        usage: dict[str, Any] = {
            "prompt_tokens": answer.input_tokens,
            "prompt_tokens_details": details,
            "completion_tokens": answer.output_tokens,
            "completion_tokens_details": {"reasoning_tokens": answer.reasoning_tokens},
            "total_tokens": answer.input_tokens + answer.output_tokens,
        }
        yield None, head | {"choices": [], "usage": usage}
    yield None, "[DONE]"


FORMATS = {
    "/v1/messages": anthropic_events,
    "/v1/responses": responses_events,
    "/v1/chat/completions": chat_events,
}
