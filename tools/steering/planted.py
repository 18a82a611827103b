"""A tiny model with a known direction: it carries the contrast of two sets of texts and decides about a word."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marple.tools.arguments import one_turn
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target

__all__ = ["PROMPTS", "Planted", "planted_target"]

PROMPTS = (
    "who is it",
    "tell me",
    "say one",
    "buy a cup",
    "what do you like",
    "do you see the river",
    "a red lamp",
    "is the cat there",
    "the stone",
    "i see you",
    "maybe not",
    "like a light",
)


@dataclass(frozen=True)
class Planted:
    """The model and what is in it."""

    target: Target
    direction: Tensor
    """``(d_model,)``, of length 1: texts with "good" lie along it and texts with "bad" against it; the head says "lamp"
    the more, the more of it there is."""
    contrast: dict[str, Any]
    """Arguments for ``steer``: positive and negative texts, prompts, reading."""


def planted_target(*, seed: int = 0, strength: float = 4.0) -> Planted:
    """A tiny model with a planted direction.

    Args:
        seed: of the weights and of the direction.
        strength: what the direction adds to the logit of "lamp", per unit of the normed last activation along it.
    """
    target = tiny_target(seed=seed)
    direction = torch.randn(target.d_model, generator=torch.Generator().manual_seed(seed + 1000))
    # Dimension 0 is the tiny model's constant.
    direction[0] = 0
    direction /= direction.norm()
    model, tokens = target.model, target.tokenizer.convert_tokens_to_ids
    with torch.no_grad():
        model.lm_head.weight[tokens(" lamp")] += strength * direction
        for word, sign in (("good", 1.0), ("bad", -1.0)):
            for form in (word, f" {word}"):
                model.model.embed_tokens.weight[tokens(form)] += sign * 4.0 * direction
        _centre(target, tokens(" lamp"), tokens(" cup"))
    nouns = ("cat", "dog", "tree", "house", "road", "river", "stone", "bird")
    contrast = {
        "positive": [f"the {noun} good" for noun in nouns],
        "negative": [f"the {noun} bad" for noun in nouns],
        "prompts": list(PROMPTS),
        "reading": "mean",
    }
    return Planted(target, direction, contrast)


def _centre(target: Target, token: int, like: int) -> None:
    """Shift a token's logit by a constant so that it is on average as large as another's."""
    prompts = [target.render(one_turn(text)) for text in PROMPTS]
    site = target.site("resid_post", -1)
    states = torch.cat([one[1:] for one in target.capture(prompts, [site], positions="all")[site]])
    normed = target.model.model.norm(states)
    head = target.model.lm_head.weight
    constant = float(normed[:, 0].mean())
    head[token, 0] -= float((normed @ (head[token] - head[like])).mean()) / constant
