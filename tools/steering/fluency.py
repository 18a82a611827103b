"""Whether steered replies are still language: their likelihood under the unsteered model, and their repetition."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["Fluency", "measure_fluency", "repetition"]

_NGRAM = 3


@dataclass(frozen=True)
class Fluency:
    """Means over the replies of one direction at one scale."""

    nll: float
    """Negative log-likelihood of a reply's tokens under the unsteered model, nats per token."""
    repetition: float
    """Share of a reply's token trigrams that repeat an earlier one, from 0 to 1 (seq-rep-3, Welleck et al. 2020)."""
    empty: float
    """Share of replies without a token, from 0 to 1."""

    def problem(self, unsteered: Fluency, *, margin: float) -> str:
        """Why these replies do not count as fluent beside the unsteered ones, or '' if they do.

        Args:
            unsteered: of the same prompts and seeds without steering.
            margin: allowed rise of the negative log-likelihood, nats per token.
        """
        if self.nll > unsteered.nll + margin:
            return f"{self.nll:.2f} nats per token under the unsteered model, unsteered {unsteered.nll:.2f}"
        if self.repetition > unsteered.repetition + 0.25:
            return f"{self.repetition:.0%} of trigrams repeat, unsteered {unsteered.repetition:.0%}"
        if self.empty > unsteered.empty + 0.25:
            return f"{self.empty:.0%} of replies are empty, unsteered {unsteered.empty:.0%}"
        return ""


def measure_fluency(replies: Sequence[Sequence[int]], scores: Sequence[Sequence[float]]) -> Fluency:
    """Fluency of a set of replies.

    Args:
        replies: token ids of each reply.
        scores: log-probability (nats) of each of those tokens under the unsteered model.
    """
    told = [-float(np.mean(row)) for row in scores if len(row)]
    return Fluency(
        nll=float(np.mean(told)) if told else 0.0,
        repetition=float(np.mean([repetition(reply) for reply in replies])),
        empty=1 - len(told) / len(replies),
    )


def repetition(tokens: Sequence[int]) -> float:
    """Share of the token trigrams that occurred before in the same reply, from 0 to 1."""
    grams = [tuple(tokens[at : at + _NGRAM]) for at in range(len(tokens) - _NGRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0
