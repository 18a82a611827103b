"""Proper scores: an honest report of probabilities is the best report.

Brier, "Verification of forecasts expressed in terms of probability", Monthly Weather Review 78 (1950);
Gneiting and Raftery, "Strictly proper scoring rules, prediction, and estimation", JASA 102 (2007).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["LOG_FLOOR", "binary_brier", "brier_skill", "log_score", "quadratic_loss"]

LOG_FLOOR = 0.01
"""Smallest probability the logarithmic score uses; 0 would cost infinitely much."""


def quadratic_loss(named: Sequence[float], right: int | None) -> float:
    """Quadratic loss of probabilities on named, mutually exclusive answers; 0 is best, 2 is worst.

    The mass that is left over counts as spread thinly over everything unnamed, so it earns nothing and costs
    nothing: naming no answer at all has loss 1, one right answer with certainty 0, one wrong answer 2.

    Args:
        named: probabilities of the named answers, summing to at most 1.
        right: index of the answer that is right, or None when none of the named ones is.
    """
    hit = 0.0 if right is None else named[right]
    return 1.0 - 2.0 * hit + math.fsum(p * p for p in named)


def binary_brier(probability: float, happened: bool) -> float:
    """Squared difference between a probability and what happened; 0 is best, 0.25 is a coin, 1 is worst."""
    return (probability - float(happened)) ** 2


def brier_skill(losses: Sequence[float], *, reference: float = 0.25) -> float | None:
    """One minus mean Brier loss over the loss of the reference forecast; 1 perfect, 0 no better. None without items."""
    if not losses:
        return None
    return 1.0 - math.fsum(losses) / len(losses) / reference


def log_score(probability: float) -> float:
    """Natural logarithm of the probability given to what is true, floored at ``LOG_FLOOR``; 0 is best."""
    return math.log(max(probability, LOG_FLOOR))
