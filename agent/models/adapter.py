"""What the three provider adapters share: attempts, outcomes, usage and cost of one turn.

The SDK retries what fails before a stream begins (connection, 408, 409, 429, 5xx), with its own back-off and
the server's ``Retry-After``. A stream that breaks midway is tried again from here, the same number of times.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, TypeVar

from marple.agent.models.failures import BrokenStreamError, Failure, UnreadableStreamError, read_failure
from marple.agent.models.prices import Price
from marple.agent.models.protocol import Draw, Message, ModelTurn, Stop, ToolCall, ToolSchema, Usage
from marple.agent.models.wellformed import well_formed
from marple.errors import AuthenticationError, ModelError, RateLimitError, UsageError

__all__ = ["Adapter", "Endpoint", "Prompt", "Reply", "sent_back"]

_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 8.0

_ERRORS: Mapping[int | None, type[ModelError]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    429: RateLimitError,
}

StreamT = TypeVar("StreamT", bound=AbstractAsyncContextManager[Any])


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where and how an adapter reaches its provider."""

    name: str
    """The name the model was opened by, ``provider/model``."""
    model: str
    """What the provider calls it."""
    base_url: str
    own_host: bool
    """Whether ``base_url`` is the provider's own, not a compatible server."""
    key: str | None = field(default=None, repr=False)
    """None for a server that needs none."""
    effort: str | None = None
    """Used when a call names none; None keeps the model's own default."""
    max_retries: int = 4
    timeout_seconds: float = 600.0
    """Longest silence before a request counts as failed."""
    price: Price | None = None


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """What one turn is asked with."""

    system: str
    messages: Sequence[Message]
    tools: Sequence[ToolSchema]
    max_output_tokens: int
    effort: str | None
    draw: Draw | None = None

    @property
    def cache_key(self) -> str:
        """Shared by runs with the same fixed prefix, so that a provider routes them to the same cache."""
        prefix = "\x00".join([self.system, *(tool.name for tool in self.tools)])
        return hashlib.sha256(prefix.encode()).hexdigest()[:32]


@dataclass
class Reply:
    """What an adapter read from one stream; ``content`` is kept to be sent back unchanged."""

    text: str = ""
    thinking: list[str] = field(default_factory=list)
    calls: list[ToolCall] = field(default_factory=list)
    stop: Stop = "end"
    stop_detail: str | None = None
    usage: Usage = field(default_factory=lambda: Usage(reported=False))
    content: Any = None
    request_id: str | None = None
    response_model: str | None = None


class Adapter(ABC, Generic[StreamT]):
    """A provider behind the :class:`~marple.agent.models.protocol.Model` protocol."""

    wire: ClassVar[str]
    """Marks what this adapter recorded of a turn, for nobody else can send it back."""
    efforts: ClassVar[Collection[str]]
    draws: ClassVar[bool] = False
    """Whether the API takes how a reply is drawn: temperature, nucleus and seed."""
    errors: ClassVar[tuple[type[Exception], ...]]
    """What the SDK and its transport raise."""

    def __init__(self, endpoint: Endpoint) -> None:
        self.name = endpoint.name
        self._endpoint = endpoint
        self._check_effort(endpoint.effort)

    @abstractmethod
    def request(self, prompt: Prompt) -> dict[str, Any]:
        """The body of the request, as the provider's API names things."""

    @abstractmethod
    async def _open(self, request: dict[str, Any]) -> StreamT: ...

    @abstractmethod
    async def _read(self, stream: StreamT, on_delta: Callable[[str], None]) -> Reply: ...

    @abstractmethod
    async def close(self) -> None:
        """Release connections; may be called twice."""

    async def generate(
        self,
        system: str,
        messages: Sequence[Message],
        tools: Sequence[ToolSchema],
        *,
        max_output_tokens: int = 4096,
        effort: str | None = None,
        on_delta: Callable[[str], None] | None = None,
        draw: Draw | None = None,
    ) -> ModelTurn:
        """Take one turn; see :meth:`marple.agent.models.protocol.Model.generate`.

        ``draw`` is for a model that is examined; None leaves it to the provider.
        """
        self._check_effort(effort)
        if draw is not None and not self.draws:
            raise UsageError(f"the API of {self.name} does not take how a reply is drawn")
        prompt = Prompt(
            system=system,
            messages=messages,
            tools=tools,
            max_output_tokens=max_output_tokens,
            effort=effort or self._endpoint.effort,
            draw=draw,
        )
        request = self.request(prompt)
        started = time.monotonic()
        reply = await self._attempts(request, _shown(on_delta))
        return self._turn(reply, seconds=time.monotonic() - started)

    async def _attempts(self, request: dict[str, Any], on_delta: Callable[[str], None]) -> Reply:
        pause = _FIRST_PAUSE_SECONDS
        for left in range(self._endpoint.max_retries, -1, -1):
            stream = await self._opened(request)
            if isinstance(stream, Failure):
                return self._outcome(stream)
            reply = await self._finished(stream, on_delta)
            if isinstance(reply, Reply):
                return reply
            if reply.kind != "transient" or not left:
                return self._outcome(reply)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE_SECONDS)
        raise AssertionError("the last attempt returns or raises")

    # A failure leaves these two as a value: an error raised while the SDK's is handled would carry that one
    # along as its context, with the request and its headers.

    async def _opened(self, request: dict[str, Any]) -> StreamT | Failure:
        try:
            return await self._open(request)
        except self.errors as error:
            return self._failure(error)

    async def _finished(self, stream: StreamT, on_delta: Callable[[str], None]) -> Reply | Failure:
        broken: tuple[type[Exception], ...] = (*self.errors, BrokenStreamError)
        try:
            async with stream:
                return await self._read(stream, on_delta)
        except broken as error:
            return self._failure(error)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            # The SDKs hand over what came without checking it against their types.
            unreadable = f"the stream is not what the API documents ({type(error).__name__}: {error})"
            return self._failure(UnreadableStreamError(unreadable))

    def _failure(self, error: Exception) -> Failure:
        return read_failure(error, secrets=[self._endpoint.key] if self._endpoint.key else [])

    def _outcome(self, failure: Failure) -> Reply:
        """A refusal or an overflow ends the turn; anything else is an error."""
        if failure.kind == "refusal" or failure.kind == "context_overflow":
            return Reply(stop=failure.kind, stop_detail=failure.message, request_id=failure.request_id)
        suffix = f" (request {failure.request_id})" if failure.request_id else ""
        sort = _ERRORS.get(failure.status, ModelError)
        raise sort(f"{self.name}: {failure.message}{suffix}", status=failure.status)

    def _turn(self, reply: Reply, *, seconds: float) -> ModelTurn:
        ended = reply.stop in ("refusal", "context_overflow")
        calls = () if ended else tuple(reply.calls)
        price = self._endpoint.price
        return ModelTurn(
            text=well_formed(reply.text),
            thinking=tuple(well_formed(thought) for thought in reply.thinking),
            tool_calls=calls,
            stop="tool_calls" if calls and reply.stop == "end" else reply.stop,
            stop_detail=reply.stop_detail,
            usage=replace(reply.usage, cost_usd=price.cost(reply.usage) if price else None),
            native=None if ended else {"wire": self.wire, "content": well_formed(reply.content)},
            request_id=reply.request_id,
            model=self.name,
            response_model=reply.response_model,
            seconds=seconds,
        )

    def _kept(self, turn: ModelTurn) -> Any:
        """What this adapter itself recorded of ``turn``; None for a turn of another model or of a script."""
        return turn.native["content"] if turn.native and turn.native["wire"] == self.wire else None

    def _check_effort(self, effort: str | None) -> None:
        if effort is not None and effort not in self.efforts:
            raise UsageError(f"{self.name} has no effort {effort!r} (valid: {', '.join(self.efforts)})")


def sent_back(turn: ModelTurn) -> bool:
    """Whether ``turn`` belongs in the history: a refused or overflowed one would stop the model again."""
    return turn.stop not in ("refusal", "context_overflow")


def _shown(on_delta: Callable[[str], None] | None) -> Callable[[str], None]:
    def show(piece: str) -> None:
        if on_delta is not None and piece:
            on_delta(well_formed(piece))

    return show
