"""What both models are to read: prompts, prompts with greedy replies, or raw texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from marple.tools.arguments import sample_seed
from marple.tools.contract import Cost
from marple.tools.diffing.reading import GROUPS, Passage
from marple.tools.replies import cost_of
from marple.tools.target.target import Completion, Target

__all__ = ["Read", "passages_of_prompts", "passages_of_replies"]

Read = Literal["reply", "last", "all"]
"""The positions that count: those of the reply, the last one of the prompt, or all but a text's first."""


def passages_of_prompts(prompts: Sequence[Sequence[int]], *, read: Read, seed: int) -> list[Passage]:
    """One passage for each prompt, read as it is."""
    groups = _groups(len(prompts), seed)
    # Nothing is before a text's first token, and its activations are unlike all others (attention sink).
    starts = [len(ids) - 1 if read == "last" else min(1, len(ids) - 1) for ids in prompts]
    return [Passage(tuple(ids), starts[at], at, groups[at]) for at, ids in enumerate(prompts)]


def passages_of_replies(
    target: Target, prompts: Sequence[Sequence[int]], *, both: bool, max_new_tokens: int, seed: int
) -> tuple[list[Passage], list[list[Completion]], Cost]:
    """Each prompt with the target's greedy reply, and then, where it differs, with the reference's.

    Returns:
        The passages, those of the target first, in the order of the prompts; the replies to each prompt; the cost.
    """
    groups = _groups(len(prompts), seed)
    models = [target, target.reference] if both and target.reference is not None else [target]
    passages: dict[tuple[int, tuple[int, ...]], Passage] = {}
    said: list[list[Completion]] = [[] for _ in prompts]
    cost = Cost()
    for model in models:
        replies = model.generate(prompts, max_new_tokens=max_new_tokens, temperature=0.0, seeds=[seed] * len(prompts))
        cost += cost_of([replies])
        for at, (ids, reply) in enumerate(zip(prompts, replies, strict=True)):
            said[at].append(reply)
            whole = (*ids, *reply.tokens)
            passages.setdefault((at, whole), Passage(whole, len(ids) - 1, at, groups[at]))
    return list(passages.values()), said, cost


def _groups(count: int, seed: int) -> list[int]:
    order = np.random.default_rng(sample_seed(seed, "groups")).permutation(count) % GROUPS
    return [int(group) for group in order]
