"""A target that is an endpoint, as the black-box tools see it: they send conversations and read text."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from marple.agent.models import AssistantMessage, Message, ModelTurn, UserMessage
from marple.agent.models.adapter import Adapter
from marple.agent.models.protocol import Draw
from marple.errors import EndpointError, ModelError, ToolError
from marple.tasks.endpoints import takes_prefix
from marple.tools.calls import report_progress
from marple.tools.target.text import quote

if TYPE_CHECKING:
    from marple.tools.target.target import Completion

__all__ = ["ENDPOINT_KEY_VARIABLE", "EndpointTarget", "Line"]

ENDPOINT_KEY_VARIABLE = "MARPLE_TARGET_KEY"
"""Environment variable of the target's key, where it is not the one that the investigator's model has."""

_CHARACTERS_PER_TOKEN = 4
_CHARACTERS_AT_LEAST = 2**16
_LONGEST_TOKEN = 64
"""Characters of a reply that are read for each token that was asked for, beyond those that are read of any."""
_BAD_REQUEST = (400, 422)
_FINISHES: Mapping[str, Literal["stop", "length", "refusal"]] = {"length": "length", "refusal": "refusal"}

Conversation = tuple[tuple[str, str], ...]


class Line:
    """One endpoint, and how many requests may be under way on it; shared by all calls.

    Args:
        model: the adapter.
        loop: the event loop that the adapter lives on.
        at_once: most requests at a time.
    """

    def __init__(self, model: Adapter[Any], loop: asyncio.AbstractEventLoop, *, at_once: int = 8) -> None:
        self.model = model
        self.loop = loop
        self.free = asyncio.Semaphore(at_once)
        """Held while a request is under way."""


class EndpointTarget:
    """Stands in for `Target` in tools that only render conversations, generate replies and quote them.

    One instance serves one call of a tool, in a thread of its own.

    Args:
        line: where the target is reached.
        reference: the model that it is compared with.
        corpus: a JSONL file of transcripts, or None.
    """

    gives_probabilities = False

    def __init__(self, line: Line, *, reference: EndpointTarget | None = None, corpus: Path | None = None) -> None:
        self._line = line
        self.reference = reference
        self.saes: Mapping[str, Any] = {}
        self.corpus = corpus
        self.tokens = [0, 0]
        """Prompt tokens and generated tokens so far; counted by their characters where the endpoint reports none."""
        self.usd: float | None = 0.0
        """US dollars so far; None as soon as one reply's price or tokens are unknown."""

    def render(self, messages: Sequence[Mapping[str, Any]], *, prefill: str | None = None) -> Conversation:
        """The conversation itself, a begun reply last: the endpoint applies its own chat template.

        Raises:
            ToolError: a system message does not come first, or the begun reply is none that the API takes.
        """
        turns = tuple((str(message["role"]), str(message["content"])) for message in messages)
        if any(role == "system" for role, _ in turns[1:]):
            raise ToolError("messages: an endpoint takes one system message, and it comes first")
        if prefill is None:
            return turns
        if not takes_prefix(self._line.model.name):
            raise ToolError("prefill: the API of this endpoint does not go on where words of yours end; use chat")
        if prefill != prefill.rstrip():
            raise ToolError(f"prefill {prefill!r} ends with white space, which this API refuses; leave it out")
        return (*turns, ("assistant", prefill))

    def site(self, name: str, *, layer: int) -> Any:
        """Refuse: an endpoint has no activations.

        Raises:
            ToolError: always.
        """
        raise ToolError("an endpoint gives no activations; for a search leave embedding at tfidf")

    @property
    def layers(self) -> int:
        """Unknown, and counted as none."""
        return 0

    def quote(self, text: str, *, limit: int | None = None) -> str:
        """Text from the model as a JSON string in which nothing is invisible."""
        return quote(text, limit=limit)

    def generate(
        self,
        prompts: Sequence[Conversation],
        *,
        max_new_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        seeds: Sequence[int],
    ) -> list[Completion]:
        """One reply per conversation.

        Raises:
            ToolError: the endpoint does not take such a request.
            EndpointError: it gave no reply after all retries.
        """
        draws = self._line.model.draws
        if not draws and (temperature != 1.0 or top_p != 1.0):
            raise ToolError(
                f"temperature is {temperature} and top_p {top_p}, but this endpoint's API takes neither; leave both out"
            )
        drawn = [
            Draw(temperature=float(temperature), top_p=float(top_p), seed=seed % 2**31) if draws else None
            for seed in seeds
        ]
        work = self._all(list(zip(prompts, drawn, strict=True)), max_new_tokens)
        return asyncio.run_coroutine_threadsafe(work, self._line.loop).result()

    async def _all(self, asked: Sequence[tuple[Conversation, Draw | None]], most: int) -> list[Completion]:
        replies: list[Completion] = []
        failed: list[Exception] = []

        async def one(conversation: Conversation, draw: Draw | None) -> Completion | None:
            async with self._line.free:
                if failed:  # what has not been sent yet is not paid for
                    return None
                try:
                    reply = await self._one(conversation, draw, most)
                except (ModelError, ToolError) as error:
                    failed.append(error)
                    return None
                replies.append(reply)
                report_progress(len(replies), len(asked), "replies")
                return reply

        in_order = await asyncio.gather(*(one(conversation, draw) for conversation, draw in asked))
        if failed:
            raise self._told(failed[0])
        return [reply for reply in in_order if reply is not None]

    def _told(self, error: Exception) -> Exception:
        if not isinstance(error, ModelError):
            return error
        if error.status in _BAD_REQUEST:
            return ToolError(f"the endpoint refused the request: {error}")
        prompt, generated = self.tokens
        return EndpointError(f"{type(error).__name__}: {error}", tokens=(prompt, generated))

    async def _one(self, conversation: Conversation, draw: Draw | None, most: int) -> Completion:
        from marple.tools.target.target import Completion

        system, messages = _as_messages(conversation)
        bounded = _at_most(_CHARACTERS_AT_LEAST + _LONGEST_TOKEN * most)
        turn = await self._line.model.generate(
            system, messages, (), max_output_tokens=most, draw=draw, on_delta=bounded
        )
        read, written = _tokens(turn, conversation)
        self.tokens[0] += read
        self.tokens[1] += written
        known = self.usd is not None and turn.usage.cost_usd is not None
        self.usd = (self.usd or 0.0) + (turn.usage.cost_usd or 0.0) if known else None
        if turn.stop == "context_overflow":
            raise ToolError(f"a conversation does not fit into the endpoint's context: {turn.stop_detail}")
        # Only the number of the tokens is known.
        return Completion(turn.text, (0,) * written, _FINISHES.get(turn.stop, "stop"), read)


def _at_most(characters: int) -> Callable[[str], None]:
    """Count the pieces of a reply; raises a ValueError, which an adapter takes for a stream that cannot be read."""
    seen = 0

    def count(piece: str) -> None:
        nonlocal seen
        seen += len(piece)
        if seen > characters:
            raise ValueError(f"a reply of more than {characters} characters")

    return count


def _tokens(turn: ModelTurn, conversation: Conversation) -> tuple[int, int]:
    if turn.usage.reported:
        return turn.usage.input_tokens, turn.usage.output_tokens
    characters = sum(len(text) for _, text in conversation)
    return -(-characters // _CHARACTERS_PER_TOKEN), -(-len(turn.text) // _CHARACTERS_PER_TOKEN)


def _as_messages(conversation: Conversation) -> tuple[str, list[Message]]:
    system = conversation[0][1] if conversation[0][0] == "system" else ""
    messages: list[Message] = [
        AssistantMessage(ModelTurn(text=text)) if role == "assistant" else UserMessage(text)
        for role, text in conversation
        if role != "system"
    ]
    return system, messages
