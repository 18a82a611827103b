"""Digests of everything a worker computes with, as it lies in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

    from marple.tools.target.target import Target

__all__ = ["digests", "tensors_sha256"]


def digests(target: Target, *, loaded: str | None = None) -> dict[str, Any]:
    """The digests of a target's weights, its reference's and its autoencoders', as in ``messages.Digests``.

    A hook or another function left in the model changes no weight and is not seen here.

    Args:
        target: no batch of it or its reference runs meanwhile.
        loaded: the target's own digest where it was computed just now.
    """
    own = loaded or _digest(target)
    reference = target.reference
    # An adapter that is kept apart and its base are one copy of the weights, and the target's digest covers both.
    apart = reference is not None and reference.model is not target.model
    return {
        "target": own,
        "reference": _digest(reference) if reference is not None and apart else None,
        "saes": {name: tensors_sha256(sae.weights.items()) for name, sae in target.saes.items()},
    }


def tensors_sha256(named: Iterable[tuple[str, Tensor]]) -> str:
    """SHA-256 over names, types, shapes and values, in order of name; at most one tensor is copied at a time."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(named, key=lambda one: one[0]):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _digest(target: Target) -> str:
    with target.exclusive():
        return target.weights_sha256()
