"""Read the residual stream through the final norm and the LM head (logit lens, nostalgebraist 2020)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marple.errors import ToolError
from marple.tools.engine.sites import Site
from marple.tools.target.target import Target

__all__ = [
    "LensReading",
    "lens_of_directions",
    "ranks",
    "read_lens",
    "show_tokens",
    "token_text",
    "top_tokens",
    "word_tokens",
]


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


@dataclass(frozen=True)
class LensReading:
    """What the lens reads at each layer and position; log-probabilities and entropies in nats."""

    layers: tuple[int, ...]
    positions: tuple[int, ...]
    tokens: Tensor
    """Most probable tokens, ``(layer, position, rank)``."""
    probabilities: Tensor
    """Theirs."""
    entropy: Tensor
    """``(layer, position)``."""
    kl: Tensor
    """Divergence of the last layer's distribution from this layer's, ``(layer, position)``; 0 at the last layer."""
    word_ranks: Tensor
    """Best rank of each word, ``(layer, position, word)``."""
    word_logprobs: Tensor
    """Log-probability that one of the word's tokens comes next, ``(layer, position, word)``."""


def read_lens(
    target: Target,
    ids: Sequence[int],
    *,
    layers: Sequence[int],
    positions: Sequence[int],
    words: Sequence[Sequence[int]] = (),
    top: int = 5,
) -> LensReading:
    """Every layer's ``resid_post`` through the lens; the last layer gives the model's own next-token distribution.

    Args:
        target: the model.
        ids: tokens of the prompt.
        layers: which, in order.
        positions: which, from 0.
        words: for each word the tokens that stand for it.
        top: how many tokens to keep.
    """
    last = Site(target.layers - 1, "resid_post")
    sites = [Site(layer, "resid_post") for layer in layers]
    found = target.capture([list(ids)], list(dict.fromkeys((*sites, last))), positions=list(positions))
    final = _log_probabilities(target, found[last][0])
    tokens, probabilities, entropy, kl, placed, said = [], [], [], [], [], []
    for site in sites:
        logs = _log_probabilities(target, found[site][0])
        values, best = logs.topk(min(top, logs.shape[-1]))
        tokens.append(best)
        probabilities.append(values.exp())
        entropy.append(-(logs.exp() * logs).sum(-1))
        kl.append((final.exp() * (final - logs)).sum(-1))
        placed.append(torch.stack([ranks(logs, one) for one in words], -1) if words else logs.new_zeros(len(logs), 0))
        said.append(
            torch.stack([logs[:, list(one)].logsumexp(-1) for one in words], -1)
            if words
            else logs.new_zeros(len(logs), 0)
        )
    stacked = [torch.stack(part) for part in (tokens, probabilities, entropy, kl, placed, said)]
    return LensReading(tuple(layers), tuple(positions), *stacked)


def _log_probabilities(target: Target, hidden: Tensor) -> Tensor:
    # Double precision: a divergence of equal distributions is 0 and not rounding.
    return target.lens(hidden).double().cpu().log_softmax(-1)
