"""Closed-form linear classifiers, for many label vectors, regularisation strengths and folds at once.

The rows are standardized once and, where there are fewer rows than features, rotated once into the space they span,
which changes none of the fits. The Gram matrix of a fold's training rows is the whole one less the fold's own, so all
folds and strengths share one pass over the data.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from marple.tools.probes.preparing import Prepared

__all__ = [
    "METHODS",
    "STRENGTHS",
    "Method",
    "Training",
    "held_out_scores",
    "solve",
    "trainings",
    "whole",
]

Method = Literal["ridge", "lda", "difference_of_means", "logistic"]
METHODS: tuple[Method, ...] = ("ridge", "lda", "difference_of_means", "logistic")

STRENGTHS: dict[Method, tuple[float, ...]] = {
    "ridge": (0.01, 0.1, 1.0, 10.0, 100.0),
    "logistic": (0.01, 0.1, 1.0, 10.0, 100.0),
    "lda": (0.01, 0.1, 0.3, 0.6, 0.9),
    "difference_of_means": (0.0,),
}
"""Ridge and logistic: the penalty in units of the mean scatter along an axis that the rows span (a quarter of it for
logistic). LDA: the share of the shrunk covariance that is a multiple of the identity."""

_LOGISTIC_STEPS = 100


@dataclass(frozen=True)
class Training:
    """Sums over training rows that are all a closed-form fit needs."""

    count: int
    mean: Tensor
    """``(rank,)``."""
    scatter: Tensor
    """``(rank, rank)``: about the mean."""
    targets: Tensor
    """``(row, label vector)``: 1 and -1."""
    target_mean: Tensor
    """``(label vector,)``."""
    cross: Tensor
    """``(rank, label vector)``: rows times targets, about their means."""
    everything: Tensor
    """``(row, rank)``: all rows, those of the fold too."""
    chosen: Tensor
    """Indices of the training rows."""
    width: int


def trainings(prepared: Prepared, targets: Tensor, fold: Tensor) -> Iterator[tuple[Tensor, Tensor, Training]]:
    """For each fold the indices of its rows, these rows, and the sums over all other rows."""
    rows = prepared.rows
    parts = [torch.nonzero(fold == at).squeeze(1) for at in range(int(fold.max()) + 1)]
    held = [rows[part] for part in parts]
    grams = [_gram(one) for one in held]
    crosses = [one.T @ targets[part] for one, part in zip(held, parts, strict=True)]
    gram, cross = torch.stack(grams).sum(dim=0), torch.stack(crosses).sum(dim=0)
    sums, target_sums = rows.sum(dim=0), targets.sum(dim=0)
    for at, part in enumerate(parts):
        count = len(rows) - len(part)
        mean = (sums - held[at].sum(dim=0)) / count
        target_mean = (target_sums - targets[part].sum(dim=0)) / count
        rest = torch.nonzero(fold != at).squeeze(1)
        yield (
            part,
            held[at],
            Training(
                count,
                mean,
                torch.addr(gram - grams[at], mean, mean, alpha=-count),
                targets[rest],
                target_mean,
                torch.addr(cross - crosses[at], mean, target_mean, alpha=-count),
                rows,
                rest,
                prepared.width,
            ),
        )


def whole(prepared: Prepared, targets: Tensor) -> Training:
    """The sums over all rows."""
    rows = prepared.rows
    mean, target_mean = rows.mean(dim=0), targets.mean(dim=0)
    centred = rows - mean
    everything = torch.arange(len(rows))
    cross = centred.T @ (targets - target_mean)
    return Training(len(rows), mean, _gram(centred), targets, target_mean, cross, rows, everything, prepared.width)


def _gram(rows: Tensor) -> Tensor:
    """``(rank, rank)``: products of all pairs of columns."""
    # NumPy sees that the result is symmetric and computes half of it; torch does not.
    held = rows.numpy()
    return torch.from_numpy(held.T @ held)


def held_out_scores(
    prepared: Prepared, targets: Tensor, fold: Tensor, *, method: Method, strengths: Sequence[float]
) -> Tensor:
    """Scores of every row by classifiers that never saw its fold.

    Args:
        prepared: the rows.
        targets: ``(row, label vector)``: 1 and -1.
        fold: ``(row,)``.
        method: the classifier.
        strengths: of regularisation.

    Returns:
        ``(strength, row, label vector)``; above 0 means positive.
    """
    scores = torch.empty(len(strengths), *targets.shape, dtype=prepared.rows.dtype)
    for part, held, training in trainings(prepared, targets, fold):
        for at, (weight, bias) in enumerate(solve(training, method=method, strengths=strengths)):
            scores[at, part] = torch.addmm(bias, held, weight)
    return scores


def solve(training: Training, *, method: Method, strengths: Sequence[float]) -> Iterator[tuple[Tensor, Tensor]]:
    """Weight ``(rank, label vector)`` and bias ``(label vector,)`` for each strength."""
    if method == "difference_of_means":
        weight = training.cross / (training.count * (1 - training.target_mean**2) / 2)
        yield weight, _midpoint_bias(training, weight)
    elif method == "lda":
        yield from _lda(training, strengths)
    else:
        rank = max(1, training.scatter.shape[0])
        mean_variance = training.scatter.diagonal().sum() / rank
        quarter = 0.25 if method == "logistic" else 1.0
        for strength in strengths:
            penalty = strength * mean_variance * quarter
            factor = _cholesky(training.scatter, penalty, share=quarter)
            if method == "ridge":
                weight = torch.cholesky_solve(training.cross, factor)
                yield weight, training.target_mean - training.mean @ weight
            else:
                yield _logistic(training, factor, penalty)


def _cholesky(scatter: Tensor, penalty: Tensor, *, share: float) -> Tensor:
    """Factor of a share of the matrix plus a multiple of the identity; in double precision where single does not do."""
    shifted = scatter * share
    shifted.diagonal().add_(penalty)
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(shifted)
    if not int(failed):
        return factor
    exact = scatter.double() * share
    exact.diagonal().add_(max(float(penalty), 1e-9 * float(exact.diagonal().max()) + 1e-30))
    factor = torch.linalg.cholesky(exact).to(scatter.dtype)
    return factor


def _midpoint_bias(training: Training, weight: Tensor) -> Tensor:
    """The bias that puts the threshold in the middle between the class means."""
    positive, negative = _class_means(training)
    return -((positive + negative) * weight).sum(dim=0) / 2


def _class_means(training: Training) -> tuple[Tensor, Tensor]:
    """``(rank, label vector)`` each."""
    share = (1 + training.target_mean) / 2
    gap = training.cross / (2 * training.count * share * (1 - share))
    middle = training.mean[:, None]
    return middle + gap * (1 - share), middle - gap * share


def _lda(training: Training, strengths: Sequence[float]) -> Iterator[tuple[Tensor, Tensor]]:
    """Fisher's discriminant with a shrunk covariance, from one eigendecomposition of the total scatter.

    The scatter within classes is the total less a multiple of the squared difference of means, so the
    Sherman-Morrison formula gives every label vector's solution from the same axes.
    """
    count = training.count
    positive, negative = _class_means(training)
    gap = positive - negative
    share = (1 + training.target_mean) / 2
    between = count * share * (1 - share)
    values, axes = torch.linalg.eigh(training.scatter)
    turned = axes.T @ gap
    within = training.scatter.diagonal().sum() - between * gap.square().sum(dim=0)
    for strength in strengths:
        penalty = (strength / (1 - strength) * within.clamp(min=0) / training.width).clamp(
            min=1e-8 * float(values[-1]) + 1e-30
        )
        scaled = turned / (values.clamp(min=0)[:, None] + penalty)
        left = (1 - between * (turned * scaled).sum(dim=0)).clamp(min=1e-6)
        weight = axes @ scaled * (count / (1 - strength) / left)
        yield weight, _midpoint_bias(training, weight) + torch.log(share / (1 - share))


def _logistic(training: Training, factor: Tensor, penalty: Tensor) -> tuple[Tensor, Tensor]:
    """Penalized logistic regression by the fixed upper bound of its curvature (Boehning & Lindsay 1988).

    The bound, a quarter of the scatter, has one factorization for all steps and label vectors. Steps are accelerated by
    Nesterov's momentum.
    """
    rows = training.everything[training.chosen] - training.mean
    wanted = (training.targets + 1) / 2
    weight = torch.zeros(rows.shape[1], wanted.shape[1], dtype=rows.dtype)
    bias = torch.zeros(wanted.shape[1], dtype=rows.dtype)
    ahead, ahead_bias, momentum = weight, bias, 1.0
    for _ in range(_LOGISTIC_STEPS):
        missing = wanted - torch.sigmoid(rows @ ahead + ahead_bias)
        step = torch.cholesky_solve(rows.T @ missing - penalty * ahead, factor)
        newer, newer_bias = ahead + step, ahead_bias + 4 * missing.mean(dim=0)
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        drift = (momentum - 1) / following
        ahead, ahead_bias = newer + drift * (newer - weight), newer_bias + drift * (newer_bias - bias)
        if float((newer - weight).abs().max()) < 1e-6 * (1e-6 + float(newer.abs().max())):
            return newer, newer_bias - training.mean @ newer
        weight, bias, momentum = newer, newer_bias, following
    return weight, bias - training.mean @ weight
