"""What directions of the residual stream do to the logits, and how tokens are shown."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from torch import Tensor

if TYPE_CHECKING:
    from marple.tools.saes.sae import SAE
    from marple.tools.target.target import Target

__all__ = ["Effect", "logit_effect", "read_directions", "token_shower"]

Effect = tuple[tuple[tuple[str, float], ...], tuple[tuple[str, float], ...]]
"""Tokens a direction promotes and suppresses, strongest first, with their logits in standard deviations."""


def logit_effect(sae: SAE, target: Target, features: Sequence[int], *, count: int = 5) -> list[Effect]:
    """What each feature's decoder row promotes and suppresses, through the final norm and the unembedding.

    The part of the lens that is odd in the row is taken, so that biases of norm and head drop out (logit lens,
    nostalgebraist 2020; on decoder rows, Bricken et al. 2023).
    """
    show, found = token_shower(target), []
    for start in range(0, len(features), 256):
        rows = sae.weights.W_dec[list(features[start : start + 256])]
        found += read_directions(target, rows, show=show, count=count)
    return found


def read_directions(
    target: Target, rows: Tensor, *, count: int = 5, show: Callable[[int], str] | None = None
) -> list[Effect]:
    """The same for any directions, ``(direction, d_model)``."""
    logits = (target.lens(rows) - target.lens(-rows)) / 2
    scores = (logits - logits.mean(-1, keepdim=True)) / logits.std(-1, keepdim=True).clamp_min(1e-9)
    show, most = show or token_shower(target), min(count, scores.shape[-1])
    high, low = scores.topk(most), scores.topk(most, largest=False)

    def named(values: Tensor, indices: Tensor) -> tuple[tuple[str, float], ...]:
        return tuple((show(token), round(z, 2)) for z, token in zip(values.tolist(), indices.tolist(), strict=True))

    return [
        (named(high.values[row], high.indices[row]), named(low.values[row], low.indices[row]))
        for row in range(len(scores))
    ]


def token_shower(target: Target) -> Callable[[int], str]:
    """A function from token id to its text, special tokens included; what it gives is the model's text, not quoted."""
    return functools.lru_cache(maxsize=None)(lambda token: str(target.tokenizer.decode([token])))
