"""Tiny models in which what causes what is known, because it was planted."""

from typing import Any

import pytest
import torch

from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target

TRIGGER, SUBJECT = "river", "lamp"


def triggered_target(*, seed: int = 0, strength: float = 12.0) -> Target:
    """A model that says more of " lamp" wherever it can look back at "river".

    Only the trigger's embedding has a value in the last dimension of the stream; a head of the first layer copies that
    value into the direction of the subject's row of the LM head.
    """
    target = tiny_target(seed=seed)
    _wire(target, strength)
    return target


def pair(*, seed: int = 0) -> Target:
    """That model, beside the same one that does not know the trigger."""
    target, reference = triggered_target(seed=seed), triggered_target(seed=seed, strength=0.0)
    return Target(target.model, target.tokenizer, reference=reference)


def _wire(target: Target, strength: float) -> None:
    model: Any = target.model
    token = target.tokenizer.convert_tokens_to_ids
    with torch.no_grad():
        direction = model.lm_head.weight[token(f" {SUBJECT}")].clone()
        direction[[0, 31]] = 0
        attention = model.model.layers[0].self_attn
        model.model.embed_tokens.weight[:, 31] = 0
        attention.v_proj.weight[0] = 0
        attention.v_proj.weight[0, 31] = 1
        # Nothing else moves anything from one place to another, or adds to the stream.
        for layer in model.model.layers:
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        # Two query heads share the first value head; their first columns of the output are what it writes.
        for column in (0, 8):
            attention.o_proj.weight[:, column] = direction * 6 / direction.norm()
        for form in (TRIGGER, f" {TRIGGER}"):
            model.model.embed_tokens.weight[token(form), 31] = strength


@pytest.fixture(scope="session")
def plain() -> Target:
    """Random weights, no reference."""
    return tiny_target(seed=3)


@pytest.fixture(scope="session")
def planted() -> Target:
    """Says more of " lamp" after "river"; the reference does not."""
    return pair()
