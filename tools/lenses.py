"""Read the residual stream through the final norm and the LM head (logit lens, nostalgebraist 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from marple.errors import ToolError
from marple.tools.target.target import Target

__all__ = ["lens_of_directions", "ranks", "show_tokens", "token_text", "top_tokens", "word_tokens"]


def lens_of_directions(target: Target, directions: Tensor) -> Tensor:
    """How directions ``(n, d_model)`` move the logits, ``(n, vocab)``, in standard deviations over the vocabulary.

    A direction is not a state: what the lens makes of no state at all is taken off, so that a norm's bias is not read
    as the direction's content.
    """
    logits = target.lens(torch.cat([directions, torch.zeros_like(directions[:1])])).float().cpu()
    moved = logits[:-1] - logits[-1]
    centred: Tensor = moved - moved.mean(-1, keepdim=True)
    return centred / centred.std(-1, keepdim=True).clamp(min=1e-12)


def ranks(scores: Tensor, tokens: Sequence[int]) -> Tensor:
    """Best rank (1 is the highest score) of any of the tokens, for scores ``(..., vocab)``; shape ``(...)``."""
    each = [(scores > scores[..., token : token + 1]).sum(-1) + 1 for token in tokens]
    return torch.stack(each).min(0).values


def top_tokens(target: Target, scores: Tensor, count: int) -> list[dict[str, Any]]:
    """The ``count`` tokens with the highest scores ``(vocab,)``, as data."""
    values, tokens = scores.topk(min(count, len(scores)))
    return [
        {"token": token_text(target, token), "id": token, "score": round(value, 4)}
        for value, token in zip(values.tolist(), tokens.tolist(), strict=True)
    ]


def token_text(target: Target, token: int) -> str:
    """A token as text, special tokens included."""
    return str(target.tokenizer.decode([token]))


def show_tokens(target: Target, tokens: Sequence[Mapping[str, Any]], count: int = 6) -> str:
    """Tokens as a line of quoted strings."""
    return " ".join(target.quote(str(token["token"]), limit=24) for token in tokens[:count])


def word_tokens(target: Target, words: Sequence[str]) -> dict[str, tuple[int, ...]]:
    """For each word the tokens that can begin it: alone, behind a space, and with a capital.

    Raises:
        ToolError: a word has no token.
    """
    found = {}
    for word in words:
        forms = [form for one in dict.fromkeys((word, word.capitalize())) for form in (one, f" {one}")]
        firsts = [target.tokenizer(form, add_special_tokens=False)["input_ids"] for form in forms]
        # A capital that the tokenizer splits off would stand for every word that begins with it.
        whole = min((len(ids) for ids in firsts if ids), default=0)
        tokens = tuple(dict.fromkeys(int(ids[0]) for ids in firsts if len(ids) == whole))
        if not tokens or not word.strip():
            raise ToolError(f'words: {word!r} has no token of its own; give a word that can be said, such as "lamp"')
        found[word] = tokens
    return found
