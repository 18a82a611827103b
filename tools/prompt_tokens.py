"""Token ids of what an experiment reads, raw text or a conversation, and the places in it that are meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import Field

from marple.errors import ToolError
from marple.tools.arguments import Message, check_conversation, one_turn
from marple.tools.engine.sites import SiteName
from marple.tools.target.target import Target

__all__ = [
    "Beginning",
    "continuation_tokens",
    "encode_pair",
    "encode_prompt",
    "fits_context",
    "resolve_layers",
    "resolve_positions",
]


Beginning = Annotated[str, Field(max_length=100_000)]
"""How a reply begins; empty where it is the model's own from the start."""


def encode_prompt(
    model: Target, *, text: str | None, messages: list[Message] | None, prefill: str | None = None
) -> list[int]:
    """Token ids of either raw text or a conversation, for a conversation with the beginning of the reply.

    Raises:
        ToolError: both or neither are given, the conversation does not end with a user message, or the prompt is longer
            than the context.
    """
    if (text is None) == (messages is None):
        raise ToolError('give either text or messages, and only one; for example "text": "The capital of France is"')
    if text is not None:
        if prefill:
            raise ToolError("prefill begins a reply and needs messages; put it behind the text itself")
        return fits_context(model, model.encode(text))
    check_conversation(messages or [])
    return fits_context(model, model.render(messages or [], prefill=prefill))


def fits_context(model: Target, ids: list[int]) -> list[int]:
    """The ids, if they fit into the model's context.

    Raises:
        ToolError: they do not, or there are none.
    """
    if not ids:
        raise ToolError("the prompt has no tokens: give at least one character of text")
    if model.context is not None and len(ids) > model.context:
        raise ToolError(
            f"the prompt has {len(ids)} tokens, but the model's context holds {model.context}: shorten it, for example "
            "to its end"
        )
    return ids


def resolve_positions(positions: Sequence[int], length: int) -> list[int]:
    """Positions counted from 0, in order and each once; negative ones count from the end of the prompt.

    Raises:
        ToolError: a position is outside of the prompt.
    """
    for position in positions:
        if not -length <= position < length:
            raise ToolError(
                f"position {position} is outside of the prompt, which has {length} tokens: allowed are 0 to "
                f"{length - 1}, or -1 (the last token) to -{length}; for example -1"
            )
    return sorted({position % length for position in positions})


def resolve_layers(model: Target, layers: Sequence[int] | None, *, site: SiteName = "resid_post") -> list[int]:
    """Layers counted from 0, in order and each once; all of them for None.

    Raises:
        ToolError: the model has no such layer.
    """
    return sorted({model.site(site, layer).layer for layer in (range(model.layers) if layers is None else layers)})


def continuation_tokens(model: Target, continuation: str) -> list[int]:
    """The tokens of what follows a prompt; a word is tried with a space before it too, and the shorter form is meant.

    Raises:
        ToolError: the continuation has no tokens.
    """
    forms = dict.fromkeys((continuation, f" {continuation.lstrip()}"))
    tokenized = [model.tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms]
    least = min(tokenized, key=len)
    if not least or not continuation.strip():
        raise ToolError(f'{continuation!r} has no tokens: give what might come next, such as " lamp"')
    return [int(token) for token in least]


def encode_pair(
    model: Target, texts: Sequence[str], *, chat: bool, system: str | None, prefill: str | None
) -> list[tuple[int, ...]]:
    """Token ids of prompts that differ in one part, as user messages or as raw text.

    Raises:
        ToolError: system or prefill are given with raw text, or a prompt is longer than the context.
    """
    if not chat and (system or prefill):
        raise ToolError("system and prefill need chat true; with chat false put everything into the prompts themselves")
    read = [model.render(one_turn(one, system=system), prefill=prefill) if chat else model.encode(one) for one in texts]
    return [tuple(fits_context(model, ids)) for ids in read]
