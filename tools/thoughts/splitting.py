"""The chain of thought inside a reply: where it begins and ends, and how to close it or leave it out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jinja2 import TemplateError

from marple.errors import ToolError
from marple.tools.target.target import Completion, Target

__all__ = [
    "KNOWN_MARKERS",
    "Markers",
    "Thought",
    "raw_text",
    "render_thinking",
    "sentences",
    "split_thought",
    "thinking_switch",
    "tokens_behind",
    "tokens_of_prefix",
]


@dataclass(frozen=True)
class Markers:
    """What a thought begins and ends with."""

    opening: str
    closing: str

    @property
    def empty(self) -> str:
        """A thought with nothing in it."""
        between = "\n\n" if re.match(r"[<\[]", self.opening) else " "
        return f"{self.opening}{between}{self.closing}"


KNOWN_MARKERS = (
    Markers("<think>", "</think>"),
    Markers("<thinking>", "</thinking>"),
    Markers("<seed:think>", "</seed:think>"),
    Markers("[THINK]", "[/THINK]"),
    Markers("<|think|>", "<|/think|>"),
    Markers("<|channel>thought", "<channel|>"),
    Markers("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
    Markers("think:", "answer:"),
)
"""Pairs in use by today's model families, special tokens among them, and one in plain words."""
_SWITCHES = ("enable_thinking", "thinking")
_SENTENCE_END = re.compile(r"(?<=[.!?\u3002\uff01\uff1f])(?=\s)|(?<=[\u3002\uff01\uff1f])|(?<=\S)(?=\s*\n)")


@dataclass(frozen=True)
class Thought:
    """A reply in two parts."""

    thought: str
    answer: str
    """Empty where the thought was not closed."""
    markers: Markers
    closed: bool
    end: int
    """Characters of the raw reply up to the end of the closing marker."""


def raw_text(target: Target, tokens: Sequence[int]) -> str:
    """Text of generated tokens with special tokens left in, for they may be a thought's markers."""
    return str(target.tokenizer.decode(list(tokens), skip_special_tokens=False, clean_up_tokenization_spaces=False))


def split_thought(text: str, *, markers: Sequence[Markers] = KNOWN_MARKERS, opened: str = "") -> Thought | None:
    """The thought and the answer of a reply, or None where no marker is met.

    Args:
        text: the raw reply.
        markers: pairs to look for, in this order.
        opened: what the prompt ends with; a thought that it opens needs no opening marker in the reply.
    """
    for pair in markers:
        begun = opened.rstrip().endswith(pair.opening)
        head = re.match(rf"\s*{re.escape(pair.opening)}", text)
        if not head and not begun:
            continue
        start = head.end() if head else 0
        stop = text.find(pair.closing, start)
        closed = stop >= 0
        thought = text[start : stop if closed else len(text)].strip()
        end = stop + len(pair.closing) if closed else len(text)
        return Thought(thought, text[end:].strip(), pair, closed, end)
    return None


def thinking_switch(target: Target) -> str | None:
    """The variable of the chat template that turns thinking on and off, or None."""
    template = target.tokenizer.chat_template
    text = template if isinstance(template, str) else str(template)
    return next((name for name in _SWITCHES if re.search(rf"\b{name}\b", text)), None)


def render_thinking(target: Target, messages: Sequence[Mapping[str, object]], *, thinking: bool | None) -> list[int]:
    """Token ids of a conversation, ready for the assistant's turn, with the template's thinking switch set.

    Raises:
        ToolError: thinking is asked for or refused, and the template has no switch.
    """
    if thinking is None:
        return target.render(messages)
    switch = thinking_switch(target)
    if switch is None:
        raise ToolError(
            f"enable_thinking is {str(thinking).lower()}, but the target's chat template has no such switch; leave "
            'it out, and ask for the thought in a message instead, for example {"role": "system", "content": "think '
            'step by step."}'
        )
    try:
        ids = target.tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            tokenize=True,
            return_dict=False,
            add_generation_prompt=True,
            **{switch: thinking},
        )
    except (TemplateError, ValueError) as error:
        raise ToolError(f"the target's chat template refuses these messages: {error}") from error
    return [int(token) for token in ids]


def tokens_behind(target: Target, text: str) -> list[int]:
    """Token ids of text that follows a rendered prompt; markers that are special tokens become those."""
    encoded: Any = target.tokenizer(text, add_special_tokens=False)
    return [int(token) for token in encoded["input_ids"]]


def tokens_of_prefix(target: Target, reply: Completion | Sequence[int], prefix: str) -> list[int]:
    """The reply's own tokens that spell ``prefix``; where the border cuts a token, the prefix is tokenized anew."""
    tokens = list(reply.tokens if isinstance(reply, Completion) else reply)
    low, high = 0, len(tokens)
    while low < high:
        middle = (low + high) // 2
        if len(raw_text(target, tokens[:middle])) < len(prefix):
            low = middle + 1
        else:
            high = middle
    return tokens[:low] if raw_text(target, tokens[:low]) == prefix else tokens_behind(target, prefix)


def sentences(text: str) -> list[str]:
    """Sentences, the white space before each kept with it, so that joined they are the text again."""
    pieces = [piece for piece in _SENTENCE_END.split(text) if piece]
    joined: list[str] = []
    for piece in pieces:
        # White space alone is no sentence: it goes with its neighbour.
        if joined and not (piece.strip() and joined[-1].strip()):
            joined[-1] += piece
        else:
            joined.append(piece)
    return joined
