"""Does adding the mean difference make the reference behave like the target?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from marple.errors import ToolError
from marple.tools.arguments import sample_seed
from marple.tools.contract import Cost
from marple.tools.diffing.reading import Passage
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.sites import Site
from marple.tools.replies import cost_of
from marple.tools.target.target import Target

__all__ = ["SteeredReference", "steer_reference"]

_RANDOM_VECTORS = 3
_PASSAGES = 32
_SHOWN = 3


@dataclass(frozen=True)
class SteeredReference:
    """The reference with a multiple of the difference added at one layer, at every position."""

    layer: int
    scale: float
    closed: float
    """Share of the gap in log-probability of the target's replies that it closes: 0 the reference, 1 the target."""
    controls: tuple[float, ...]
    """The same for random vectors of the same length."""
    replies: tuple[str, ...]
    """Greedy replies of the steered reference to the first prompts."""

    @property
    def broken(self) -> bool:
        """Whether the edit makes the target's replies less likely than before by as much as the gap was."""
        return self.closed < -1

    @property
    def outside_controls(self) -> bool:
        """Whether it closes more than any control."""
        return self.closed > max(self.controls)

    def to_dict(self) -> dict[str, Any]:
        """As data."""
        lists = {"controls": list(self.controls), "replies": list(self.replies)}
        return {**asdict(self), **lists, "outside_controls": self.outside_controls, "broken": self.broken}


def steer_reference(
    target: Target, passages: Sequence[Passage], vector: Tensor, *, layer: int, scales: Sequence[float], seed: int
) -> tuple[list[SteeredReference], Cost]:
    """Measure the steered reference on up to 32 of the target's replies.

    Args:
        target: with its reference.
        passages: prompts with the target's greedy replies.
        vector: the difference, ``(d_model,)``.
        layer: where it is added, at ``resid_post``.
        scales: multiples of the vector.
        seed: of the random vectors.

    Raises:
        ToolError: no reply has a token.
    """
    reference = target.reference
    assert reference is not None
    chosen = [passage for passage in passages if len(passage.tokens) > passage.start + 1][:_PASSAGES]
    if not chosen:
        raise ToolError("steer: all of the target's replies are empty, so that there is nothing to measure it on")
    pairs = [(one.tokens[: one.start + 1], one.tokens[one.start + 1 :]) for one in chosen]
    ours, theirs = _total(target.score(pairs)), _total(reference.score(pairs))
    gap = ours - theirs
    generator = torch.Generator().manual_seed(sample_seed(seed, "random vectors"))
    noise = [torch.randn(len(vector), generator=generator) for _ in range(_RANDOM_VECTORS)]
    vectors = [vector, *(one * (vector.norm() / one.norm()) for one in noise)]
    found, cost, tokens = [], Cost(), sum(len(one.tokens) for one in chosen)
    for scale in scales:
        edits = [[Intervention(Site(layer, "resid_post"), one, op="add", scale=scale)] for one in vectors]
        closed = [
            (_total(reference.score(pairs, interventions=[edit] * len(pairs))) - theirs) / gap if gap > 1e-6 else 0.0
            for edit in edits
        ]
        replies = reference.generate(
            [prompt for prompt, _ in pairs[:_SHOWN]],
            max_new_tokens=24,
            temperature=0.0,
            seeds=[seed] * len(pairs[:_SHOWN]),
            interventions=[edits[0]] * len(pairs[:_SHOWN]),
        )
        texts = tuple(reply.text for reply in replies)
        found.append(SteeredReference(layer, scale, closed[0], tuple(closed[1:]), texts))
        cost += Cost(prompt_tokens=len(vectors) * tokens) + cost_of([replies])
    return found, cost + Cost(prompt_tokens=2 * tokens)


def _total(scores: Sequence[Sequence[float]]) -> float:
    return sum(map(sum, scores))
