"""What every investigator model understands and answers: messages in, one :class:`ModelTurn` out.

Nothing here knows a provider. A turn round-trips through JSON, so that a run can store it in an event and
rebuild the conversation from events alone; ``ModelTurn.native`` carries what the provider wants to see again
unchanged (signed thinking, encrypted reasoning).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol, TypeAlias, get_args

from marple.agent.models.wellformed import well_formed

__all__ = [
    "AssistantMessage",
    "Draw",
    "Message",
    "Model",
    "ModelTurn",
    "Stop",
    "ToolCall",
    "ToolMessage",
    "ToolSchema",
    "Usage",
    "UserMessage",
]

Stop: TypeAlias = Literal["end", "tool_calls", "length", "refusal", "context_overflow"]


@dataclass(frozen=True)
class ToolSchema:
    """A tool as the model sees it; ``parameters`` is a JSON Schema of type ``object``."""

    name: str
    description: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How one reply of a model that is examined is drawn, as far as its provider's API takes it."""

    temperature: float
    top_p: float
    seed: int
    """Below 2**31."""


@dataclass(frozen=True)
class ToolCall:
    """One call the model asked for.

    ``arguments`` is None when ``raw`` (the JSON text as it came) is not a JSON object; ``error`` then says
    why, in words fit for the model. Every call of a turn must be answered by a :class:`ToolMessage` before
    the next turn.
    """

    id: str
    name: str
    arguments: dict[str, Any] | None
    raw: str
    error: str | None = None

    @classmethod
    def parse(cls, id: str, name: str, *, raw: str) -> ToolCall:
        """Build a call from the provider's JSON text, kept if malformed; empty text means ``{}``."""
        raw = well_formed(raw)
        try:
            arguments = json.loads(raw or "{}", parse_constant=_reject_constant)
            if not isinstance(arguments, dict):
                raise ValueError(f"expected an object, got {type(arguments).__name__}")
            json.dumps(arguments, ensure_ascii=False).encode()
        except (ValueError, RecursionError) as error:
            reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
            return cls(id, name, None, raw, f"the arguments are not a JSON object: {reason}")
        return cls(id, name, arguments, raw)

    @classmethod
    def of(cls, name: str, arguments: Mapping[str, Any], *, id: str = "call_1") -> ToolCall:
        """Build a well-formed call from a mapping, for scripts and tests."""
        return cls.parse(id, name, raw=json.dumps(dict(arguments), ensure_ascii=False))

    @property
    def sendable(self) -> dict[str, Any]:
        """The arguments as an object a provider accepts in the history, malformed text wrapped."""
        return self.arguments if self.arguments is not None else {"INVALID_JSON": self.raw}


def _reject_constant(name: str) -> None:
    raise ValueError(f"{name} is not valid JSON")


_USAGE_NAMES = {
    "input_tokens": "gen_ai.usage.input_tokens",
    "output_tokens": "gen_ai.usage.output_tokens",
    "cache_read_input_tokens": "gen_ai.usage.cache_read.input_tokens",
    "cache_creation_input_tokens": "gen_ai.usage.cache_creation.input_tokens",
    "reasoning_output_tokens": "gen_ai.usage.reasoning.output_tokens",
}


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Tokens of one turn, the same meaning for every provider."""

    input_tokens: int = 0
    """All input tokens, those read from and written to the provider's cache included."""
    output_tokens: int = 0
    """All output tokens, reasoning included."""
    cache_read_input_tokens: int = 0
    cache_creation_input_tokens: int = 0
    reasoning_output_tokens: int = 0
    cost_usd: float | None = None
    """US dollars; None when the price or a count is unknown, never 0 for unknown."""
    reported: bool = True
    """False when the provider sent no usage: the counts are 0 because they are unknown."""

    def to_dict(self) -> dict[str, Any]:
        """The OpenTelemetry GenAI attribute names, plus ``cost_usd`` and ``reported``."""
        counts: dict[str, Any] = {otel: getattr(self, name) for name, otel in _USAGE_NAMES.items()}
        return counts | {"cost_usd": self.cost_usd, "reported": self.reported}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Usage:
        """Undo :meth:`to_dict`."""
        counts = {name: int(data[otel]) for name, otel in _USAGE_NAMES.items()}
        return cls(**counts, cost_usd=data["cost_usd"], reported=data["reported"])


@dataclass(frozen=True, kw_only=True)
class ModelTurn:
    """One answer of a model."""

    text: str = ""
    thinking: tuple[str, ...] = ()
    """Readable reasoning, if the provider shows any; for people, never sent back from here."""
    tool_calls: tuple[ToolCall, ...] = ()
    stop: Stop = "end"
    """``length``: cut off, may still hold calls. ``refusal`` and ``context_overflow`` hold none."""
    stop_detail: str | None = None
    """The provider's own words for a refusal or an overflow, if it gave any."""
    usage: Usage = field(default_factory=Usage)
    native: dict[str, Any] | None = None
    """``{"wire": adapter, "content": ...}``, which that adapter sends back; None: rebuilt from the text."""
    request_id: str | None = None
    model: str = ""
    """The name the model was opened by."""
    response_model: str | None = None
    """The model that answered, as the provider names it: often a dated version of the one asked for."""
    seconds: float = 0.0
    """Wall time of the turn, retries included."""

    def to_dict(self) -> dict[str, Any]:
        """A JSON object; ``from_dict(json.loads(json.dumps(turn.to_dict()))) == turn``."""
        data = {name: getattr(self, name) for name in ("text", "stop", "stop_detail", "native")}
        data |= {name: getattr(self, name) for name in ("request_id", "model", "response_model", "seconds")}
        data["thinking"] = list(self.thinking)
        data["tool_calls"] = [asdict(call) for call in self.tool_calls]
        data["usage"] = self.usage.to_dict()
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelTurn:
        """Undo :meth:`to_dict`; fields added by a later version are ignored.

        Raises:
            ValueError: the stop reason is not one of :data:`Stop`.
        """
        if data["stop"] not in get_args(Stop):
            raise ValueError(f"unknown stop reason {data['stop']!r} (valid: {', '.join(get_args(Stop))})")
        plain = ("text", "stop", "stop_detail", "native", "request_id", "model", "response_model", "seconds")
        return cls(
            **{name: data[name] for name in plain},
            thinking=tuple(data["thinking"]),
            tool_calls=tuple(_call_from_dict(call) for call in data["tool_calls"]),
            usage=Usage.from_dict(data["usage"]),
        )


def _call_from_dict(data: Mapping[str, Any]) -> ToolCall:
    return ToolCall(data["id"], data["name"], data["arguments"], data["raw"], data["error"])


@dataclass(frozen=True)
class UserMessage:
    """Text from the harness or a person."""

    text: str


@dataclass(frozen=True)
class AssistantMessage:
    """A turn the model took before."""

    turn: ModelTurn


@dataclass(frozen=True)
class ToolMessage:
    """The answer to one :class:`ToolCall`, found by ``call_id``."""

    call_id: str
    name: str
    text: str
    is_error: bool = False


Message: TypeAlias = UserMessage | AssistantMessage | ToolMessage


class Model(Protocol):
    """A model that can investigate: the four adapters implement this."""

    @property
    def name(self) -> str:
        """The name it was opened by, such as ``anthropic/<model>``."""
        ...

    async def generate(
        self,
        system: str,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema],
        *,
        max_output_tokens: int = 4096,
        effort: str | None = None,
        on_delta: Callable[[str], None] | None = None,
    ) -> ModelTurn:
        """Take one turn.

        Args:
            system: the system prompt; empty for none.
            messages: the conversation so far, oldest first.
            tools: what the model may call.
            max_output_tokens: limit on output, reasoning included.
            effort: how hard to think; None keeps the model's own default.
            on_delta: called with each piece of answer text as it arrives, for display only: when a broken
                stream is tried again the text starts over.

        Raises:
            ModelError: the provider failed after all retries.
            UsageError: this provider has no such effort.
        """
        ...

    async def close(self) -> None:
        """Release connections; may be called twice."""
        ...
