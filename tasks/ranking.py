"""How well scores rank positives above negatives: area under the ROC curve, recall at few false alarms, precision."""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

__all__ = ["auroc", "average_precision", "recall_at"]


def auroc(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Probability that a positive scores above a negative, ties counting half; 0.5 where a class is missing."""
    negatives = sorted(score for score, label in zip(scores, labels, strict=True) if not label)
    positives = [score for score, label in zip(scores, labels, strict=True) if label]
    if not negatives or not positives:
        return 0.5
    below = sum(bisect.bisect_left(negatives, p) + bisect.bisect_right(negatives, p) for p in positives)
    return below / (2 * len(negatives) * len(positives))


def recall_at(scores: Sequence[float], labels: Sequence[bool], *, false_positives: float = 0.01) -> float:
    """Share of positives above the lowest threshold that at most this share of negatives exceeds."""
    negatives = sorted((score for score, label in zip(scores, labels, strict=True) if not label), reverse=True)
    positives = [score for score, label in zip(scores, labels, strict=True) if label]
    if not positives:
        return 0.0
    allowed = math.floor(false_positives * len(negatives) + 1e-9)
    threshold = negatives[allowed] if allowed < len(negatives) else -math.inf
    return sum(score > threshold for score in positives) / len(positives)


def average_precision(scores: Sequence[float], labels: Sequence[bool]) -> float:
    """Mean precision over the positives, equal scores taken together; the base rate where all scores are equal."""
    total = sum(labels)
    if not total:
        return 0.0
    found = seen = 0
    area = 0.0
    for value in sorted(set(scores), reverse=True):
        tied = [label for score, label in zip(scores, labels, strict=True) if score == value]
        found, seen = found + sum(tied), seen + len(tied)
        area += sum(tied) * found / seen
    return area / total
