"""Rows made ready for fitting: standardized, and rotated into the space they span."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Prepared", "prepare"]


@dataclass(frozen=True)
class Prepared:
    """Rows ready for fitting."""

    rows: Tensor
    """``(row, rank)``: standardized, and rotated where there are fewer rows than features."""
    width: int
    """Number of features before the rotation."""
    mean: Tensor
    """``(feature,)``."""
    scale: Tensor
    """``(feature,)``: standard deviations, 1 for constant features."""
    rotation: Tensor | None
    """``(feature, rank)``, or None."""

    def original(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Weight ``(rank, label vector)`` and bias for the features as they were given."""
        back = weight if self.rotation is None else self.rotation @ weight
        back = back / self.scale[:, None]
        return back, bias - self.mean @ back


def prepare(features: Tensor, *, standardize: bool = True, dtype: torch.dtype = torch.float32) -> Prepared:
    """Standardize rows, without a look at their labels.

    Args:
        features: ``(row, feature)``.
        standardize: whether each feature gets unit variance.
        dtype: to compute in.
    """
    rows = features.to(dtype, copy=True)
    mean = rows.mean(dim=0)
    rows -= mean
    scale = torch.ones_like(mean)
    if standardize:
        spread = rows.square().mean(dim=0).sqrt()
        scale = torch.where(spread > 1e-7 * (spread.max() + 1e-30), spread, torch.ones_like(spread))
        rows /= scale
    rotation = None
    width = rows.shape[1]
    if rows.shape[0] < width:
        exact = rows.double()
        values, axes = torch.linalg.eigh(exact @ exact.T)
        kept = values > 1e-10 * values[-1]
        # Where all rows are equal one axis of zeros stands for the space that they span.
        kept[-1] = True
        lengths = values[kept].clamp(min=1e-30).sqrt()
        rotation = (exact.T @ (axes[:, kept] / lengths)).to(dtype)
        rows = (axes[:, kept] * lengths).to(dtype)
    return Prepared(rows, width, mean, scale, rotation)
