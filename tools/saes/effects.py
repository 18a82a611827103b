"""What decoder rows do to the logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from marple.tools.lenses import lens_of_directions, top_tokens

if TYPE_CHECKING:
    from marple.tools.saes.sae import SAE
    from marple.tools.target.target import Target

__all__ = ["Effect", "logit_effect", "read_directions"]

Effect = tuple[tuple[tuple[str, float], ...], tuple[tuple[str, float], ...]]
"""Tokens a direction promotes and suppresses, strongest first, with their logits in standard deviations."""

_ROWS = 256


def logit_effect(sae: SAE, target: Target, features: Sequence[int], *, count: int = 5) -> list[Effect]:
    """What each feature's decoder row promotes and suppresses, read through the final norm and the unembedding.

    The logit lens (nostalgebraist 2020) on decoder rows, as in Bricken et al. (2023).
    """
    chosen = list(features)
    found: list[Effect] = []
    for start in range(0, len(chosen), _ROWS):
        found += read_directions(target, sae.weights.W_dec[chosen[start : start + _ROWS]], count=count)
    return found


def read_directions(target: Target, rows: Tensor, *, count: int = 5) -> list[Effect]:
    """The same for any directions, ``(direction, d_model)``."""
    scores = lens_of_directions(target, rows.cpu())

    def named(row: Tensor, sign: int) -> tuple[tuple[str, float], ...]:
        return tuple((one["token"], round(sign * one["score"], 2)) for one in top_tokens(target, sign * row, count))

    return [(named(row, 1), named(row, -1)) for row in scores]
