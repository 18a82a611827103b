"""The tensors of a sparse autoencoder, checked, and what can be folded into them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Self

import torch
from torch import Tensor

from marple.errors import UsageError

__all__ = ["Weights"]


@dataclass(frozen=True, eq=False)
class Weights:
    """Tensors in float32, named as SAELens names them.

    Raises:
        UsageError: shapes do not belong together, or a value is NaN or infinite.
    """

    W_enc: Tensor
    """``(d_in, d_sae)``."""
    W_dec: Tensor
    """``(d_sae, d_out)``; ``d_out`` is ``d_in`` but for a transcoder."""
    b_enc: Tensor
    """``(d_sae,)``; of a gated SAE the bias of the magnitudes."""
    b_dec: Tensor
    """``(d_out,)``."""
    threshold: Tensor | None = None
    """``(d_sae,)``, of a JumpReLU: what is not above it is zero."""
    b_gate: Tensor | None = None
    """``(d_sae,)``, of a gated SAE."""
    r_mag: Tensor | None = None
    """``(d_sae,)``, of a gated SAE: logarithm of the magnitudes' scale."""
    W_skip: Tensor | None = None
    """``(d_out, d_in)``, of a transcoder with an affine connection around the features."""

    def __post_init__(self) -> None:
        for name, value in self.items():
            object.__setattr__(self, name, value.detach().to(torch.float32).contiguous())
        d_in, d_sae = self.W_enc.shape if self.W_enc.ndim == 2 else (0, 0)
        d_out = self.b_dec.shape[0] if self.b_dec.ndim == 1 else 0
        expected = {"W_enc": (d_in, d_sae), "W_dec": (d_sae, d_out), "b_dec": (d_out,), "W_skip": (d_out, d_in)}
        for name, value in self.items():
            if tuple(value.shape) != expected.get(name, (d_sae,)) or 0 in value.shape:
                shapes = ", ".join(f"{other} {tuple(one.shape)}" for other, one in self.items())
                raise UsageError(f"the SAE's {name} does not fit its other tensors ({shapes})")
            if not bool(torch.isfinite(value).all()):
                raise UsageError(f"the SAE's {name} holds NaN or infinite values")

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Those of a mapping that have a name here; the first four must be there."""
        return cls(**{one.name: tensors[one.name] for one in fields(cls) if one.name in tensors})

    def items(self) -> Iterator[tuple[str, Tensor]]:
        """The tensors there are, by name."""
        for one in fields(self):
            value = getattr(self, one.name)
            if value is not None:
                yield one.name, value

    def to(self, device: torch.device | str) -> Weights:
        """The same on another device."""
        return Weights.from_tensors({name: value.to(device) for name, value in self.items()})

    def fold_scaling(self, factor: float) -> Weights:
        """For activations as they are, where training had them times ``factor``.

        Raises:
            UsageError: the factor is not above 0.
        """
        if not factor > 0:
            raise UsageError(f"norm_scaling_factor is {factor}; it must be above 0")
        folded = {"W_enc": self.W_enc * factor, "W_dec": self.W_dec / factor, "b_dec": self.b_dec / factor}
        return Weights.from_tensors({**dict(self.items()), **folded})

    def fold_decoder_norm(self) -> Weights:
        """With decoder rows of unit norm, and the features' activations times what their norms were."""
        norms = self.W_dec.norm(dim=1)
        folded = {
            "W_enc": self.W_enc * norms,
            "b_enc": self.b_enc * norms,
            "W_dec": self.W_dec / norms.clamp_min(torch.finfo(torch.float32).tiny).unsqueeze(1),
        }
        return Weights.from_tensors({**dict(self.items()), **folded})
