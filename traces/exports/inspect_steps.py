"""The steps of a run as Inspect's messages and events, and amounts in its form."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from marple.traces.exports.steps import Step, image_of
from marple.traces.exports.verdict import claims_of
from marple.traces.review.event_rows import event_row
from marple.traces.run_folder import RunFolder

if TYPE_CHECKING:
    from inspect_ai.model import ChatMessage, ModelUsage

__all__ = ["events_of", "messages_of", "moment", "usage_of"]


_BOOKKEEPING = ("call_start", "run_start", "worker_start")


def moment(seconds: Any) -> str:
    """A time in seconds since the epoch as ISO 8601 in UTC."""
    return datetime.fromtimestamp(_number(seconds), UTC).isoformat()


def messages_of(run: RunFolder, steps: Sequence[Step], attachments: dict[str, str]) -> list[ChatMessage]:
    """The conversation, the claims with their marks last; plots go into ``attachments``."""
    from inspect_ai.model import ChatMessageAssistant, ChatMessageTool, ChatMessageUser
    from inspect_ai.tool import ToolCall, ToolCallError

    messages: list[ChatMessage] = []
    for step in steps:
        id = step.event.id
        if step.kind == "turn":
            calls = [ToolCall(id=c.id, function=c.tool, arguments=dict(c.arguments)) for c in step.calls]
            messages.append(
                ChatMessageAssistant(id=id, content=_said(step), tool_calls=calls or None, source="generate")
            )
        elif step.kind == "result":
            error = ToolCallError("unknown", step.text) if step.failed else None
            shown = _content(run, step, attachments)
            messages.append(
                ChatMessageTool(id=id, content=shown, tool_call_id=step.call_id, function=step.tool, error=error)
            )
        else:
            messages.append(ChatMessageUser(id=id, content=step.text or "(nothing)", source="input"))
    if claims := claims_of(run.result or {}):
        lines = [f"{claim.get('statement')} [{', '.join(claim.get('evidence', ()))}]: {mark}" for claim, mark in claims]
        messages.append(
            ChatMessageUser(content="Claims, made again with fresh seeds and on the control:\n" + "\n".join(lines))
        )
    return messages


def _said(step: Step) -> Any:
    """What a model thought and said in a turn; a turn of nothing but calls says which."""
    from inspect_ai.model import ContentReasoning, ContentText

    thought = [ContentReasoning(reasoning=step.thinking)] if step.thinking else []
    return [*thought, ContentText(text=step.text or f"(calls {', '.join(call.tool for call in step.calls)})")]


def _content(run: RunFolder, step: Step, attachments: dict[str, str]) -> Any:
    """The text of a result with its plots, each an attachment."""
    from inspect_ai.model import ContentImage, ContentText

    content: list[Any] = [ContentText(text=f"[{step.event.id}] {step.text}")]
    for image in step.images:
        data = image_of(run, image)
        if data is not None:
            encoded = f"data:{image.media_type};base64,{base64.b64encode(data).decode()}"
            digest = hashlib.sha256(encoded.encode()).hexdigest()[:32]
            attachments[digest] = encoded
            content.append(ContentImage(image=f"attachment://{digest}"))
    return content


def events_of(
    run: RunFolder, steps: Sequence[Step], messages: Sequence[ChatMessage], attachments: dict[str, str]
) -> list[Any]:
    """The events in their order; those without an Inspect type are info events."""
    from inspect_ai.event import InfoEvent

    shown = {step.event.id: step for step in steps}
    begun = _number(run.spec.get("created"))
    events: list[Any] = []
    said: list[ChatMessage] = []
    by_id = {message.id: message for message in messages}
    for event in run.events():
        place: dict[str, Any] = {
            "uuid": f"{run.run_id}-{event.id}",
            "timestamp": moment(event.ts),
            "metadata": {"event": event.id},
        }
        place["working_start"] = max(0.0, event.ts - begun)
        step = shown.get(event.id)
        if step is not None and step.kind == "turn":
            events.append(_model_event(step, list(said), place))
        elif step is not None and step.kind == "result":
            events.append(_tool_event(step, _content(run, step, attachments), place))
        elif event.type not in _BOOKKEEPING:
            row = event_row(event)
            data = {event.id: f"{row.name}: {row.line}", "role": event.role, **event.payload}
            events.append(InfoEvent(source=f"marple/{event.type}", data=data, **place))
        if event.id in by_id:
            said.append(by_id[event.id])
    return events


def _model_event(step: Step, said: list[ChatMessage], place: Mapping[str, Any]) -> Any:
    from inspect_ai.event import ModelEvent
    from inspect_ai.model import ChatCompletionChoice, ChatMessageAssistant, GenerateConfig, ModelOutput
    from inspect_ai.tool import ToolCall

    turn = step.event.payload.get("turn", {})
    calls = [ToolCall(id=c.id, function=c.tool, arguments=dict(c.arguments)) for c in step.calls]
    message = ChatMessageAssistant(id=step.event.id, content=_said(step), tool_calls=calls or None, source="generate")
    model = str(turn.get("model") or "unknown")
    return ModelEvent(
        model=model,
        role=step.event.role,
        input=said,
        tools=[],
        tool_choice="auto",
        config=GenerateConfig(),
        output=ModelOutput(
            model=model, choices=[ChatCompletionChoice(message=message)], usage=usage_of(turn.get("usage") or {})
        ),
        working_time=step.event.seconds,
        **place,
    )


def _tool_event(step: Step, content: Any, place: Mapping[str, Any]) -> Any:
    from inspect_ai.event import ToolEvent
    from inspect_ai.tool import ToolCallError

    return ToolEvent(
        id=step.call_id,
        function=step.tool,
        arguments=dict(step.event.payload.get("arguments") or {}),
        result=content,
        error=ToolCallError("unknown", step.text) if step.failed else None,
        failed=step.failed or None,
        working_time=step.event.seconds,
        message_id=step.event.id,
        **place,
    )


def usage_of(usage: Mapping[str, Any]) -> ModelUsage:
    """Tokens as Inspect counts them: input without what the provider's cache served."""
    from inspect_ai.model import ModelUsage

    def count(name: str) -> int:
        return int(usage.get(f"gen_ai.usage.{name}", 0))

    cached = count("cache_read.input_tokens"), count("cache_creation.input_tokens")
    return ModelUsage(
        input_tokens=max(0, count("input_tokens") - sum(cached)),
        output_tokens=count("output_tokens"),
        total_tokens=count("input_tokens") + count("output_tokens"),
        input_tokens_cache_read=cached[0],
        input_tokens_cache_write=cached[1],
        reasoning_tokens=count("reasoning.output_tokens"),
        total_cost=usage.get("cost_usd"),
    )


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
