"""How far the target's replies are from what the reference would say."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marple.tools.contract import Cost
from marple.tools.statistics import robust_z
from marple.tools.target.target import Completion, Target

__all__ = ["Departure", "Divergence", "mean_departures", "measure_divergence"]

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


@dataclass(frozen=True)
class Departure:
    """Mean divergence, in nats per token, of the prompts that were made with one value of a slot, or one persona."""

    slot: str
    value: str
    nats_per_token: float
    prompts: int

    def to_dict(self) -> dict[str, Any]:
        """As data."""
        return {
            "slot": self.slot,
            "value": self.value,
            "nats_per_token": self.nats_per_token,
            "prompts": self.prompts,
        }


def mean_departures(
    conditions: Sequence[Mapping[str, str]], divergences: Sequence[Divergence | None]
) -> list[Departure]:
    """The mean divergence under each value of each slot that was varied, the largest first.

    Args:
        conditions: slot to value, of each prompt; prompts without a divergence are left out.
        divergences: of each prompt.
    """
    groups: dict[tuple[str, str], list[float]] = {}
    for condition, divergence in zip(conditions, divergences, strict=True):
        if divergence:
            for entry in condition.items():
                groups.setdefault(entry, []).append(divergence.nats_per_token)
    sizes = Counter(slot for slot, _ in groups)
    departures = [Departure(*key, float(np.mean(values)), len(values)) for key, values in groups.items()]
    departures = [departure for departure in departures if sizes[departure.slot] > 1]
    return sorted(departures, key=lambda departure: -departure.nats_per_token)
