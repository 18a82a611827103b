"""A sparse autoencoder as it is used: encode activations into features, read the strongest, decode them back.

Conventions are those of SAELens (Bloom et al. 2024). Architectures: ReLU (Cunningham et al. 2023, Bricken et al.
2023), gated (Rajamanoharan et al. 2024a), JumpReLU (Rajamanoharan et al. 2024b; BatchTopK, Bussmann et al. 2024, is one
at inference) and TopK (Gao et al. 2024); transcoders (Dunefsky et al. 2024) differ only in what they decode to.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
from torch import Tensor

from marple.errors import ToolError, UsageError
from marple.tools.engine.sites import Site, parse_site
from marple.tools.saes.topk import exact_topk
from marple.tools.saes.weights import Weights

if TYPE_CHECKING:
    from marple.tools.saes.cards import Card
    from marple.tools.saes.explanations import Explanation
    from marple.tools.target.target import Target

__all__ = ["SAE", "Architecture", "Normalization"]

Architecture = Literal["standard", "jumprelu", "topk", "gated"]
Normalization = Literal["none", "layer_norm", "constant_norm_rescale"]

_CHUNK = {"cpu": 256, "mps": 2048, "cuda": 4096}


@dataclass(frozen=True, eq=False)
class SAE:
    """A sparse autoencoder for inference, in float32.

    Raises:
        UsageError: a tensor or setting that the architecture needs is missing or impossible.
    """

    architecture: Architecture
    weights: Weights = field(repr=False)
    k: int | None = None
    """Of a TopK: active features per token, at most."""
    apply_b_dec_to_input: bool = True
    normalize_activations: Normalization = "none"
    hook_name: str = ""
    """Where its input is read, as its file says; ``site`` is the same for the engine."""
    hook_name_out: str = ""
    """Where a transcoder's output belongs; empty for an SAE."""
    metadata: Mapping[str, Any] = field(default_factory=dict)
    """What else its file says about its making: model, data set, Neuronpedia id."""
    cards: Mapping[int, Card] = field(default_factory=dict, repr=False)
    """What is known of features, by index; not every feature need have one."""
    explanations: Mapping[int, tuple[Explanation, ...]] = field(default_factory=dict, repr=False)
    """Labels by feature: untrusted text."""

    def __post_init__(self) -> None:
        needed = {"jumprelu": ("threshold",), "gated": ("b_gate", "r_mag")}
        for name in needed.get(self.architecture, ()):
            if getattr(self.weights, name) is None:
                raise UsageError(f"the SAE's architecture is {self.architecture}, but it has no {name}")
        if self.architecture == "topk" and (self.k is None or not 1 <= self.k <= self.d_sae):
            raise UsageError(f"a topk SAE's k must be from 1 to its {self.d_sae} features; it is {self.k}")
        if self.apply_b_dec_to_input and self.d_in != self.d_out:
            raise UsageError(
                f"the SAE reads {self.d_in} dimensions and writes {self.d_out}, so its b_dec cannot be taken from its "
                "input"
            )

    @property
    def d_in(self) -> int:
        """Width of what it reads."""
        return int(self.weights.W_enc.shape[0])

    @property
    def d_sae(self) -> int:
        """Number of features."""
        return int(self.weights.W_enc.shape[1])

    @property
    def d_out(self) -> int:
        """Width of what it writes."""
        return int(self.weights.b_dec.shape[0])

    @property
    def is_transcoder(self) -> bool:
        """Whether it writes at another site than it reads."""
        return bool(self.hook_name_out) or self.weights.W_skip is not None or self.d_in != self.d_out

    @functools.cached_property
    def site(self) -> Site:
        """Where its input is read.

        Raises:
            ToolError: the engine has no such site (``attn.hook_z``, ``hook_mlp_in``), or none is known.
        """
        try:
            return parse_site(self.hook_name)
        except ToolError as error:
            raise ToolError(
                f"this SAE reads {self.hook_name or 'an unknown site'!r}, which the engine has not: {error}"
            ) from error

    @functools.cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over everything that decides its features."""
        digest = hashlib.blake2b(digest_size=16)
        settings = (self.architecture, self.k, self.apply_b_dec_to_input, self.normalize_activations, self.hook_name)
        digest.update(repr(settings).encode())
        for name, value in self.weights.items():
            digest.update(f"{name} {tuple(value.shape)}".encode())
            digest.update(value.cpu().numpy().tobytes())
        return digest.hexdigest()

    def to(self, device: torch.device | str) -> Self:
        """The same SAE on another device."""
        return dataclasses.replace(self, weights=self.weights.to(device))

    def check_fits(self, target: Target) -> Site:
        """The site at which it reads this target.

        Raises:
            ToolError: it is a transcoder, it belongs to another model (width, layer), or the engine has no such site.
        """
        if self.is_transcoder:
            raise ToolError(
                f"this is a transcoder from {self.hook_name} to {self.hook_name_out or 'elsewhere'}, not an SAE of one "
                "site; use an SAE of resid_post, attn_out or mlp_out"
            )
        model = (
            f"it belongs to another model ({self.metadata.get('model_name') or 'unnamed'}); take one of this model, "
            "for example trained by: marple sae train TARGET"
        )
        if self.d_in != target.d_model:
            raise ToolError(f"this SAE reads width {self.d_in}, but the target's d_model is {target.d_model}: {model}")
        if not self.site.layer < target.layers:
            raise ToolError(
                f"this SAE reads {self.hook_name}, but the target's layers are 0 to {target.layers - 1}: {model}"
            )
        return self.site

    def check_feature(self, index: int) -> int:
        """The index itself.

        Raises:
            ToolError: there is no such feature.
        """
        if not 0 <= index < self.d_sae:
            raise ToolError(f"there is no feature {index}; this SAE has features 0 to {self.d_sae - 1}, for example 0")
        return index

    def encode(self, x: Tensor) -> Tensor:
        """Feature activations: ``(..., d_in)`` to ``(..., d_sae)``.

        Raises:
            ToolError: another width than ``d_in``, or NaN.
        """
        rows = self._rows(x)
        if self.architecture == "topk":
            values, indices = self._top_rows(rows, self.k or 1)
            dense = torch.zeros(len(rows), self.d_sae, device=rows.device).scatter_(1, indices, values)
        else:
            dense = self._active(rows).relu_()
        return dense.view(*x.shape[:-1], self.d_sae)

    def top(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The strongest features, without the cost of the others: of ``(..., d_in)``.

        Args:
            x: activations.
            k: how many; of a TopK SAE never more than its own k.

        Returns:
            Activations in falling order and feature indices, both ``(..., k)``; an activation of 0 means that no more
            features are active, and its index means nothing.

        Raises:
            ToolError: another width than ``d_in``, or NaN.
        """
        values, indices = self._top_rows(self._rows(x), min(k, self.k or k, self.d_sae))
        shape = (*x.shape[:-1], values.shape[-1])
        return values.view(shape), indices.view(shape)

    def decode(self, features: Tensor, *, x: Tensor | None = None) -> Tensor:
        """Reconstruction: ``(..., d_sae)`` to ``(..., d_out)``.

        Args:
            features: activations of features.
            x: ``(..., d_in)``, what they are of; needed where the SAE normalizes its input or has a skip connection.

        Raises:
            ToolError: ``x`` is needed and not given.
        """
        if x is None and (self.normalize_activations != "none" or self.weights.W_skip is not None):
            raise ToolError("this SAE's reconstruction depends on its input too: give x")
        out = features @ self.weights.W_dec + self.weights.b_dec
        if self.weights.W_skip is not None and x is not None:
            out = out + x.to(out) @ self.weights.W_skip.T
        if x is None or self.is_transcoder:
            return out
        _, scale, shift = self._normalized(x.to(out))
        return out * scale + shift

    def reconstruct(self, x: Tensor) -> Tensor:
        """Encode and decode: ``(..., d_in)`` to ``(..., d_out)``."""
        return self.decode(self.encode(x), x=x)

    @functools.cached_property
    def _bias(self) -> Tensor:
        # The decoder's bias is taken from the input once and for all, not from every token.
        return (
            self.weights.b_enc - self.weights.b_dec @ self.weights.W_enc
            if self.apply_b_dec_to_input
            else self.weights.b_enc
        )

    @functools.cached_property
    def _gate_bias(self) -> Tensor:
        assert self.weights.b_gate is not None
        return (
            self.weights.b_gate - self.weights.b_dec @ self.weights.W_enc
            if self.apply_b_dec_to_input
            else self.weights.b_gate
        )

    @functools.cached_property
    def _magnitude(self) -> tuple[Tensor, Tensor]:
        weights = self.weights
        assert weights.r_mag is not None
        assert weights.b_gate is not None
        scale = weights.r_mag.exp()
        return scale, weights.b_enc - weights.b_gate * scale

    def _rows(self, x: Tensor) -> Tensor:
        if x.shape[-1] != self.d_in:
            raise ToolError(
                f"activations have width {x.shape[-1]}, but this SAE reads {self.d_in}: another model's SAE?"
            )
        rows = x.reshape(-1, self.d_in).to(self.weights.W_enc)
        if not bool(torch.isfinite(rows).all()):
            raise ToolError("the activations hold NaN or infinite values; features of them mean nothing")
        return self._normalized(rows)[0]

    def _normalized(self, x: Tensor) -> tuple[Tensor, Tensor | float, Tensor | float]:
        """What is encoded, and the scale and shift that undo it."""
        if self.normalize_activations == "none":
            return x, 1.0, 0.0
        if self.normalize_activations == "constant_norm_rescale":
            scale = x.norm(dim=-1, keepdim=True) / self.d_in**0.5
            return x / scale, scale, 0.0
        mean, spread = x.mean(-1, keepdim=True), x.std(-1, keepdim=True)
        return (x - mean) / (spread + 1e-5), spread, mean

    def _active(self, rows: Tensor) -> Tensor:
        """Activations before the last ReLU, so that what is not positive is not active: ``(row, d_sae)``."""
        if self.architecture == "gated":
            gate = torch.addmm(self._gate_bias, rows, self.weights.W_enc)
            scale, shift = self._magnitude
            return torch.where(gate > 0, torch.addcmul(shift, gate, scale), 0.0)
        before = torch.addmm(self._bias, rows, self.weights.W_enc)
        return before if self.weights.threshold is None else before.masked_fill_(before <= self.weights.threshold, 0.0)

    def _top_rows(self, rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
        size = _CHUNK.get(rows.device.type, 256)
        parts = [exact_topk(self._active(chunk), k) for chunk in torch.split(rows, size)]
        if not parts:
            return rows.new_zeros(0, k), torch.zeros(0, k, dtype=torch.long, device=rows.device)
        return torch.cat([values for values, _ in parts]).relu_(), torch.cat([indices for _, indices in parts])
