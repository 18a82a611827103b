"""One number per prompt and feature, from the activations of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marple.tools.calls import report_progress
from marple.tools.saes.activations import first_position
from marple.tools.saes.evaluation import Reconstruction
from marple.tools.saes.reading import ChosenSAE, check_explained
from marple.tools.target.target import Target

__all__ = ["Pool", "Pooled", "align", "pool_features"]

Pool = Literal["mean", "max"]
"""Over the tokens read of a prompt."""
_PROMPTS = 64
_CHECKED_TOKENS = 8192


@dataclass(frozen=True)
class Pooled:
    """What a model's prompts activate."""

    features: NDArray[np.int64]
    """Those active on any of the prompts, rising."""
    values: NDArray[np.float64]
    """``(prompt, active feature)``."""
    activation: Tensor
    """``(prompt, d_model)``: mean of the activations that were read."""
    explained: Reconstruction
    """On the first tokens read."""
    tokens: int
    """Tokens run through the model."""


def pool_features(
    model: Target, chosen: ChosenSAE, prompts: Sequence[tuple[Sequence[int], int]], *, pool: Pool
) -> Pooled:
    """Run prompts and pool their features.

    Args:
        model: the target or its reference.
        chosen: the SAE.
        prompts: token ids and the first position read; a beginning-of-sequence token is never read.
        pool: over the positions read.
    """
    rows: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    means: list[Tensor] = []
    checked: list[Tensor] = []
    for first in range(0, len(prompts), _PROMPTS):
        part = prompts[first : first + _PROMPTS]
        captured = model.capture([list(ids) for ids, _ in part], [chosen.site], positions="all")[chosen.site]
        for (ids, start), states in zip(part, captured, strict=True):
            read = states[max(start, first_position(model, ids)) :]
            features = chosen.sae.encode(read)
            pooled = (features.mean(0) if pool == "mean" else features.amax(0)).cpu()
            active = pooled.nonzero().squeeze(1)
            rows.append((active.numpy(), pooled[active].numpy()))
            means.append(read.mean(0))
            if sum(map(len, checked)) < _CHECKED_TOKENS:
                checked.append(states[first_position(model, ids) :])
        report_progress(min(len(prompts), first + _PROMPTS), len(prompts), "prompts")
    alive = np.unique(np.concatenate([active for active, _ in rows]))
    values = np.zeros((len(rows), len(alive)))
    for row, (indices, strengths) in enumerate(rows):
        values[row, np.searchsorted(alive, indices)] = strengths
    tokens = sum(len(ids) for ids, _ in prompts)
    return Pooled(alive, values, torch.stack(means), check_explained(chosen, checked), tokens)


def align(*many: Pooled) -> tuple[NDArray[np.int64], list[NDArray[np.float64]]]:
    """The features active in any of them (the first if none is), and each one's values, ``(prompt, feature)``."""
    union = np.unique(np.concatenate([one.features for one in many]))
    if not len(union):
        union = np.zeros(1, dtype=np.int64)
    matrices = []
    for one in many:
        values = np.zeros((len(one.values), len(union)))
        values[:, np.searchsorted(union, one.features)] = one.values
        matrices.append(values)
    return union, matrices
