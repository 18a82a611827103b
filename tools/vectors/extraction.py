"""Directions from two sets of activations.

Every method returns a vector as long as the distance of the two means along it, so that adding it once carries the
mean of the negative set to that of the positive one, as far as this direction goes.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from marple.errors import ToolError
from marple.tools.probes.linear import fit_probe

__all__ = ["EXTRACTIONS", "Extraction", "difference_of_means", "extract", "paired_component", "probe_direction"]

Extraction = Literal["difference_of_means", "pca", "probe"]
EXTRACTIONS: tuple[Extraction, ...] = get_args(Extraction)


def extract(method: Extraction, positive: Tensor, negative: Tensor) -> Tensor:
    """A direction by the method's name.

    Args:
        method: ``difference_of_means``, ``pca`` (of paired differences) or ``probe`` (the weight of a ridge probe).
        positive: ``(prompt, d_model)``.
        negative: ``(prompt, d_model)``.

    Returns:
        ``(d_model,)``, pointing from negative to positive.

    Raises:
        ToolError: a set is empty or not finite, the sets do not differ, or pairs are needed and the counts differ.
    """
    for name, states in (("positive", positive), ("negative", negative)):
        if not len(states):
            raise ToolError(f"the {name} set is empty; a contrast needs prompts on both sides")
        if not bool(torch.isfinite(states).all()):
            raise ToolError(f"the activations of the {name} set have NaN or infinite values at this site")
    chosen = {"difference_of_means": difference_of_means, "pca": paired_component, "probe": probe_direction}[method]
    direction = chosen(positive.float(), negative.float())
    scale = float(positive.float().norm(dim=-1).mean())
    if float(direction.norm()) <= 1e-6 * scale:
        raise ToolError(
            "the two sets have the same activations at this site, so there is no direction between them: take a later "
            'layer, or position "mean"'
        )
    return direction


def difference_of_means(positive: Tensor, negative: Tensor) -> Tensor:
    """Mean of the positive set minus mean of the negative set (Marks & Tegmark 2024; Panickssery et al. 2024)."""
    return positive.mean(dim=0) - negative.mean(dim=0)


def paired_component(positive: Tensor, negative: Tensor) -> Tensor:
    """The first principal axis of the paired differences, not centred (after Zou et al. 2023).

    Raises:
        ToolError: the sets are not pairs.
    """
    if len(positive) != len(negative):
        raise ToolError(
            f"pca needs pairs, but positive has {len(positive)} prompts and negative {len(negative)}; give as many of "
            'each, in the same order, or use "difference_of_means"'
        )
    differences = (positive - negative).double()
    axis: Tensor = torch.linalg.svd(differences, full_matrices=False).Vh[0]
    return (axis * torch.dot(differences.mean(dim=0), axis)).float()


def probe_direction(positive: Tensor, negative: Tensor) -> Tensor:
    """The weight of a ridge probe on the two sets, its strength chosen by cross-validation (Alain & Bengio 2017).

    Raises:
        ToolError: a set has fewer than four prompts.
    """
    if min(len(positive), len(negative)) < 4:
        raise ToolError(
            f"a probe needs at least 4 prompts on each side, got {len(positive)} and {len(negative)}; give more, or "
            'use "difference_of_means"'
        )
    states = torch.cat([positive, negative])
    labels = torch.cat([torch.ones(len(positive)), torch.zeros(len(negative))])
    weight = fit_probe(states, labels).weight
    unit: Tensor = weight / weight.norm()
    return unit * torch.dot(difference_of_means(positive, negative), unit)
