"""Is a mean activation difference the same in two halves of the prompts, and larger than halves differ anyway?"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from marple.tools.diffing.reading import Reading

__all__ = ["LayerDifference", "describe_layers", "half_differences"]


@dataclass(frozen=True)
class LayerDifference:
    """The mean difference of one layer; lengths are Euclidean, in the units of the residual stream."""

    layer: int
    norm: float
    relative_norm: float
    """Length of the mean difference over the mean length of the reference's activations."""
    split_half_cosine: float | None
    """Mean cosine between the differences of two halves of the prompts; None below two groups of prompts."""
    reference_halves_norm: float | None
    """Control: what two halves of the same prompts differ by in the reference itself, 95th percentile over the splits,
    scaled to all prompts and relative like ``relative_norm``."""


def describe_layers(reading: Reading) -> list[LayerDifference]:
    """The differences of a reading, layer by layer."""
    mean, halves = reading.mean_difference, half_differences(reading)
    found = []
    for at, layer in enumerate(reading.layers):
        norm, scale = float(mean[at].norm()), float(reading.norm[at].clamp(min=1e-12))
        cosine = control = None
        if halves:
            pairs = [(first[at], second[at]) for _, first, second in _split_means(reading, reading.difference)]
            cosine = float(torch.stack([torch.cosine_similarity(a, b, dim=0) for a, b in pairs]).mean())
            control = float(torch.stack([half[at].norm() for half in halves]).quantile(0.95)) / scale
        found.append(LayerDifference(layer, norm, norm / scale, cosine, control))
    return found


def half_differences(reading: Reading) -> list[Tensor]:
    """Control differences ``(layer, d_model)``: the reference's mean over half of the prompts minus the other half's.

    They are scaled by ``sqrt(n1 n2) / n``, so that they have the sampling error of one mean over all prompts. There is
    one for each way to split the groups in two.
    """
    total = float(reading.count.sum())
    found = []
    for share, first, second in _split_means(reading, reading.reference):
        found.append((first - second) * (share * (total - share)) ** 0.5 / total)
    return found


def _split_means(reading: Reading, sums: Tensor) -> Iterator[tuple[float, Tensor, Tensor]]:
    """Number of passages in the first half and both halves' means, for each split of the groups that have prompts."""
    groups = [group for group, count in enumerate(reading.count.tolist()) if count > 0]
    size = len(groups) // 2
    if not size:
        return
    everything, total = sums.sum(0), reading.count.sum()
    for chosen in itertools.combinations(groups, size):
        if len(groups) == 2 * size and groups[0] not in chosen:
            continue
        index = list(chosen)
        part, many = sums[index].sum(0), reading.count[index].sum()
        yield float(many), part / many, (everything - part) / (total - many)
