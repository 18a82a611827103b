"""Linear probes: cross-validate over strengths, fit, score, and keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marple.errors import ToolError
from marple.tools.probes.auroc import auroc
from marple.tools.probes.folds import make_folds
from marple.tools.probes.preparing import Prepared, prepare
from marple.tools.probes.solvers import STRENGTHS, Method, held_out_scores, solve, whole

__all__ = ["CrossValidation", "Probe", "cross_validate", "fit_probe"]


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear classifier of activations: positive where ``h @ weight + bias > 0``."""

    weight: Tensor
    """``(d_model,)``, float32, for activations as they come."""
    bias: float
    method: Method
    strength: float

    def scores(self, features: Tensor) -> NDArray[np.float64]:
        """Decision values, shape ``(row,)``."""
        return (features.double() @ self.weight.double() + self.bias).numpy()


@dataclass(frozen=True, eq=False)
class CrossValidation:
    """How well labels are predicted on rows that a classifier never saw."""

    method: Method
    strength: float
    """The one with the largest AUROC."""
    auroc: float
    """Of all held-out scores together."""
    accuracy: float
    """Share of held-out rows on the right side of 0, at the chosen strength."""
    scores: NDArray[np.float64]
    """``(row,)``: held-out scores at the chosen strength."""
    by_strength: Mapping[float, float] = field(default_factory=dict)
    """AUROC of each strength."""
    null: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """``(shuffle,)``: the same AUROC, its strength chosen in the same way, of each vector of shuffled labels."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, without the scores."""
        return {
            "method": self.method,
            "strength": self.strength,
            "auroc": self.auroc,
            "accuracy": self.accuracy,
            "by_strength": {str(strength): value for strength, value in self.by_strength.items()},
        }


def cross_validate(
    features: Tensor,
    labels: NDArray[np.bool_],
    *,
    method: Method = "ridge",
    strengths: Sequence[float] | None = None,
    fold: NDArray[np.int64] | None = None,
    shuffled: NDArray[np.bool_] | None = None,
) -> CrossValidation:
    """Cross-validated AUROC of a classifier, its strength chosen by that AUROC, and the same for shuffled labels.

    That the choice is made on the same folds flatters the AUROC a little; it flatters shuffled labels as much.

    Args:
        features: ``(row, feature)``.
        labels: ``(row,)``.
        method: the classifier.
        strengths: of regularisation; by default ``STRENGTHS[method]``.
        fold: of each row; by default five stratified folds.
        shuffled: ``(shuffle, row)``: label vectors without meaning, fitted alongside.

    Raises:
        ToolError: a class is missing, or the features are not finite.
    """
    check_rows(features, labels)
    prepared = prepare(features, standardize=method != "difference_of_means")
    return _validated(prepared, labels, method, strengths=strengths, fold=fold, shuffled=shuffled)


def _validated(
    prepared: Prepared,
    labels: NDArray[np.bool_],
    method: Method,
    *,
    strengths: Sequence[float] | None = None,
    fold: NDArray[np.int64] | None = None,
    shuffled: NDArray[np.bool_] | None = None,
) -> CrossValidation:
    grid = tuple(strengths or STRENGTHS[method])
    folds = make_folds(labels) if fold is None else fold
    every = labels[None] if shuffled is None else np.concatenate([labels[None], shuffled])
    found = held_out_scores(prepared, _targets(every, prepared), torch.from_numpy(folds), method=method, strengths=grid)
    scores = found.double().numpy().transpose(0, 2, 1)
    areas = np.array([[auroc(row, label) for row, label in zip(one, every, strict=True)] for one in scores])
    best = int(areas[:, 0].argmax())
    return CrossValidation(
        method=method,
        strength=grid[best],
        auroc=float(areas[best, 0]),
        accuracy=float(((scores[best, 0] > 0) == labels).mean()),
        scores=scores[best, 0],
        by_strength=dict(zip(grid, areas[:, 0].tolist(), strict=True)),
        null=areas[:, 1:].max(axis=0),
    )


def fit_probe(
    features: Tensor,
    labels: NDArray[np.bool_] | Tensor,
    *,
    method: Method = "ridge",
    strength: float | None = None,
) -> Probe:
    """Fit a probe on all rows.

    Args:
        features: ``(row, feature)``.
        labels: ``(row,)``.
        method: the classifier.
        strength: of regularisation; None chooses by cross-validation.

    Raises:
        ToolError: as ``cross_validate``.
    """
    told = np.asarray(labels).astype(np.bool_)
    check_rows(features, told)
    prepared = prepare(features, standardize=method != "difference_of_means")
    chosen = strength
    if chosen is None:
        grid = STRENGTHS[method]
        folds = min(5, int(told.sum()), int((~told).sum()))
        chosen = (
            grid[0]
            if len(grid) == 1
            else _validated(prepared, told, method, fold=make_folds(told, folds=folds)).strength
        )
    weight, bias = next(solve(whole(prepared, _targets(told[None], prepared)), method=method, strengths=(chosen,)))
    weight, bias = prepared.original(weight, bias)
    return Probe(weight[:, 0].float(), float(bias[0]), method, chosen)


def check_rows(features: Tensor, labels: NDArray[np.bool_]) -> None:
    """Raise a ToolError unless there are rows of both classes and every feature is a number."""
    if features.ndim != 2 or len(features) != len(labels):
        raise ToolError(
            f"features have shape {tuple(features.shape)} for {len(labels)} labels; (row, feature) is needed"
        )
    if labels.all() or not labels.any():
        raise ToolError(f"all {len(labels)} rows have the same label; a probe needs positive and negative ones")
    # One sum is a fifth of the cost of looking at every number, and finite only if all of them are.
    if not bool(torch.isfinite(features.sum())) and not bool(torch.isfinite(features).all()):
        raise ToolError(
            "the activations have NaN or infinite values at this site; take another layer or float32 weights"
        )


def _targets(labels: NDArray[np.bool_], prepared: Prepared) -> Tensor:
    """``(row, label vector)``: 1 and -1."""
    return torch.from_numpy(np.where(labels.T, 1.0, -1.0)).to(prepared.rows.dtype)
