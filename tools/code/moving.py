"""A loaded target moved to an accelerator, in the process that is to use it there."""

from __future__ import annotations

from marple.tools.target.target import Target

__all__ = ["move"]


def move(target: Target, device: str) -> Target:
    """The target on another device, with its reference and autoencoders; the one given is of no use afterwards."""
    shared = target.reference is not None and target.reference.engine is target.engine
    switch = target.engine.switch
    moved = Target(target.model.to(device), target.tokenizer, switch=switch)
    if target.reference is not None:
        other = target.reference
        moved.reference = (
            Target(moved.model, other.tokenizer, base_of=moved)
            if shared
            else Target(other.model.to(device), other.tokenizer)
        )
    moved.saes = {name: sae.to(device) for name, sae in target.saes.items()}
    moved.corpus = target.corpus
    return moved
