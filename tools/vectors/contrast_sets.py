"""Two sets of texts that differ in one thing, and their activations."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from marple.errors import ToolError
from marple.tools.arguments import Message, Text, one_turn
from marple.tools.engine.sites import Site
from marple.tools.prompt_tokens import fits_context
from marple.tools.target.target import Target

__all__ = ["ContrastText", "ContrastTexts", "Reading", "check_sets", "encode_texts", "read_states", "shown_text"]

ContrastText = Text | Annotated[list[Message], Field(min_length=1)]
"""A user message, or a whole conversation; one that ends with the assistant's turn is read up to its end."""
ContrastTexts = Annotated[list[ContrastText], Field(max_length=10_000)]
Reading = Literal["last", "mean"]
"""The activation of a text's last token, or the mean over its tokens, the first left out."""


def check_sets(
    positive: Sequence[ContrastText], negative: Sequence[ContrastText], *, least: int = 2, prefix: str = ""
) -> None:
    """Raise a ToolError unless both sets hold enough texts and none stands in both.

    Args:
        positive: texts that have what is looked for.
        negative: texts that have it not.
        least: texts needed on each side.
        prefix: of both arguments' names, as in ``ood_positive``.
    """
    for name, texts in (("positive", positive), ("negative", negative)):
        if len(texts) < least:
            raise ToolError(
                f"{prefix}{name} holds {len(texts)} texts; a contrast needs at least {least} on each side, such as "
                f'"{prefix}positive": ["I love it", "It is great"], "{prefix}negative": ["I hate it", "It is awful"]'
            )
    both = {_key(text) for text in positive} & {_key(text) for text in negative}
    if both:
        shown = sorted(both)[0][:80]
        raise ToolError(f"{len(both)} texts stand in both sets, such as {shown!r}; a text belongs to one side")


def encode_texts(target: Target, texts: Sequence[ContrastText], *, chat: bool, system: str | None) -> list[list[int]]:
    """Token ids of texts in the chat template, or of raw texts.

    Args:
        target: whose tokenizer.
        texts: user messages or conversations.
        chat: whether to use the chat template; conversations need it.
        system: system prompt of texts that are no conversations.

    Raises:
        ToolError: a conversation or a system prompt is given without the chat template, or a text exceeds the context.
    """
    return [fits_context(target, _encode(target, text, chat=chat, system=system)) for text in texts]


def _encode(target: Target, text: ContrastText, *, chat: bool, system: str | None) -> list[int]:
    if not chat:
        if not isinstance(text, str) or system:
            raise ToolError("conversations and system need chat true; with chat false give raw texts alone")
        return target.encode(text)
    if isinstance(text, str):
        return target.render(one_turn(text, system=system))
    if text[-1]["role"] != "assistant":
        return target.render(text)
    if len(text) == 1:
        raise ToolError("a conversation holds the assistant's turn alone; put a user message before it")
    return target.render(text[:-1], prefill=text[-1]["content"])


def read_states(
    target: Target, prompts: Sequence[Sequence[int]], sites: Sequence[Site], *, reading: Reading
) -> dict[Site, Tensor]:
    """One activation per prompt at each site, ``(prompt, d_model)``, from one pass.

    The first token is left out of means: it often carries an activation far larger than all others (Sun et al. 2024).
    """
    if reading == "last":
        captured = target.capture(prompts, sites, positions="last")
        return {site: torch.stack(states) for site, states in captured.items()}
    whole = target.capture(prompts, sites, positions="all")
    return {
        site: torch.stack([(one[1:] if len(one) > 1 else one).mean(dim=0) for one in states])
        for site, states in whole.items()
    }


def shown_text(text: ContrastText) -> str:
    """All words of a text or of a conversation's turns."""
    return text if isinstance(text, str) else "\n".join(turn["content"] for turn in text)


def _key(text: ContrastText) -> str:
    return text if isinstance(text, str) else json.dumps(text)
