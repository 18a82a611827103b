"""A direction over the tokens of a text, beside random directions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marple.tools.arguments import sample_seed
from marple.tools.engine.sites import Site
from marple.tools.steering.controls import random_direction
from marple.tools.target.target import Target

__all__ = ["CONTROLS", "Projections", "project_tokens"]

CONTROLS = 100
"""Random directions beside the one under test."""

_Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Projections:
    """One direction's values at each token; z counts standard deviations from the mean over neutral tokens."""

    raw: _Array
    """``(token,)``: dot product with the unit direction, in the activations' units."""
    z: _Array
    """``(token,)``; 0 at the first token, which is not judged."""
    low: _Array
    high: _Array
    """``(token,)``: the middle 95 % of the random directions' z."""
    neutral_mean: float
    neutral_deviation: float
    control_largest: _Array
    """``(control,)``: each random direction's largest ``|z|`` over the tokens."""

    @property
    def outside(self) -> NDArray[np.bool_]:
        """``(token,)``: whether z lies outside of the random directions' band."""
        return (self.z < self.low) | (self.z > self.high)

    @property
    def largest(self) -> float:
        """Largest ``|z|``."""
        return float(np.abs(self.z).max())

    @property
    def p_value(self) -> float:
        """Share of the directions whose largest ``|z|`` is as large, itself counted among them."""
        return float((1 + (self.control_largest >= self.largest).sum()) / (1 + len(self.control_largest)))


def project_tokens(
    target: Target, tokens: Sequence[int], neutral: Sequence[Sequence[int]], *, site: Site, direction: Tensor, seed: int
) -> Projections:
    """Project the activations of a text on a direction and on random ones.

    The mean of a projection says nothing (the activations' own mean has one on any direction), and tokens with unusual
    activations stand out on every direction. So each direction is measured in its own standard deviations over neutral
    texts, and a token counts only if it stands out more than on random directions.

    Args:
        target: the model.
        tokens: of the text.
        neutral: texts that have nothing to do with the direction.
        site: where.
        direction: ``(d_model,)``.
        seed: of the random directions.
    """
    captured = target.capture([tokens, *neutral], [site], positions="all")[site]
    usual = torch.cat([one[1:] for one in captured[1:]]).double()
    draws = [random_direction(target.d_model, seed=sample_seed(seed, "project", at)) for at in range(CONTROLS)]
    unit = direction.double() / direction.double().norm()
    axes = torch.stack([unit, *(draw.double() for draw in draws)], dim=1)
    values, neutral_values = captured[0].double() @ axes, usual @ axes
    mean, deviation = neutral_values.mean(dim=0), neutral_values.std(dim=0).clamp(min=1e-12)
    z = ((values - mean) / deviation).numpy()
    z[0] = 0.0
    low, high = np.quantile(z[:, 1:], (0.025, 0.975), axis=1)
    return Projections(
        raw=values[:, 0].numpy(),
        z=z[:, 0],
        low=low,
        high=high,
        neutral_mean=float(mean[0]),
        neutral_deviation=float(deviation[0]),
        control_largest=np.abs(z[:, 1:]).max(axis=0),
    )
