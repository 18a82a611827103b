"""How far the target's replies are from what the reference would say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marple.tools.contract import Cost
from marple.tools.statistics import robust_z
from marple.tools.target.target import Completion, Target

__all__ = ["Divergence", "measure_divergence"]

_OUTLIER_Z = 3.5
_LEAST_SPREAD = 0.02


@dataclass(frozen=True)
class Divergence:
    """Mean over the target's reply tokens of log p(target) - log p(reference), in nats, of one prompt.

    Its expectation is the Kullback-Leibler divergence per token: 0 where the models agree.
    """

    nats_per_token: float
    robust_z: float
    """Distance from the median prompt in robust standard deviations, of at least 0.02 nats."""

    @property
    def outlier(self) -> bool:
        """More than 3.5 robust standard deviations above the median prompt (Iglewicz & Hoaglin 1993)."""
        return self.robust_z > _OUTLIER_Z

    def to_dict(self) -> dict[str, Any]:
        """As data."""
        return {"nats_per_token": self.nats_per_token, "robust_z": self.robust_z, "outlier": self.outlier}


def measure_divergence(
    target: Target,
    reference: Target,
    prompts: Sequence[tuple[Sequence[int], Sequence[int]]],
    replies: Sequence[Sequence[Completion]],
) -> tuple[list[Divergence | None], Cost] | None:
    """The divergence of each prompt; None for a prompt with empty replies only.

    Args:
        target: the model that made the replies.
        reference: the model they are compared with.
        prompts: token ids of each prompt, rendered for the target and for the reference.
        replies: the target's samples of each prompt.

    Returns:
        None if the models have different vocabularies, so that their probabilities are not comparable.
    """
    if target.tokenizer.get_vocab() != reference.tokenizer.get_vocab():
        return None
    order = [(at, reply.tokens) for at, samples in enumerate(replies) for reply in samples if reply.tokens]
    own = [(prompts[at][0], tokens) for at, tokens in order]
    other = [(prompts[at][1], tokens) for at, tokens in order]
    gaps: dict[int, list[float]] = {}
    for (at, _), mine, its in zip(order, target.score(own), reference.score(other), strict=True):
        gaps.setdefault(at, []).extend(np.subtract(mine, its).tolist())
    means = {at: float(np.mean(values)) for at, values in gaps.items()}
    scores = robust_z(list(means.values()), least_spread=_LEAST_SPREAD).tolist() if means else []
    found = {at: Divergence(mean, score) for (at, mean), score in zip(means.items(), scores, strict=True)}
    read = sum(len(prompt) + len(tokens) for prompt, tokens in (*own, *other))
    return [found.get(at) for at in range(len(replies))], Cost(prompt_tokens=read)
