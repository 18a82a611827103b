"""Where each family of models keeps its layers, norms and head: one row a family, checked when a model is loaded.

To add a family, add a row to ``FAMILIES`` under its ``model_type`` and run ``pytest tests/engine -k families``: the
check at load compares what the row claims with what the model computes.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from marple.errors import TargetRefusedError

__all__ = ["FAMILIES", "Architecture", "Family", "read_architecture"]


@dataclass(frozen=True)
class Family:
    """The names of a family's parts, as paths of attributes."""

    decoder: str = "model"
    layers: str = "layers"
    final_norm: str = "norm"
    attention: str = "self_attn"
    """In a layer: the module whose output attention adds to the residual stream."""
    mlp: str = "mlp"
    """In a layer: the module whose output the MLP adds to the residual stream."""
    masks: Literal["one", "by_type"] = "one"
    """Whether the decoder takes one attention mask or one for each kind of layer."""


_LLAMA = Family()
_POST_NORM = Family(attention="post_attention_layernorm", mlp="post_feedforward_layernorm")
_GEMMA_2 = Family(attention="post_attention_layernorm", mlp="post_feedforward_layernorm", masks="by_type")

FAMILIES: dict[str, Family] = {
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": Family(masks="by_type"),
    "qwen3": Family(masks="by_type"),
    "gemma": _LLAMA,
    "gemma2": _GEMMA_2,
    "gemma3_text": _GEMMA_2,
    "gemma3": Family(
        decoder="model.language_model",
        attention="post_attention_layernorm",
        mlp="post_feedforward_layernorm",
        masks="by_type",
    ),
    "olmo": _LLAMA,
    "olmo2": _POST_NORM,
    "olmo3": _GEMMA_2,
    "gpt2": Family(decoder="transformer", layers="h", final_norm="ln_f", attention="attn"),
    "gpt_neox": Family(
        decoder="gpt_neox", final_norm="final_layer_norm", attention="post_attention_dropout", mlp="post_mlp_dropout"
    ),
}


@dataclass(frozen=True, eq=False)
class Architecture:
    """The parts of one loaded model."""

    family: Family
    model: Any
    decoder: Any
    """Token ids in, last hidden states (normed) out."""
    layers: tuple[nn.Module, ...]
    final_norm: nn.Module
    output: nn.Module
    """The LM head's matrix, without what some families do to the logits."""
    attention: tuple[nn.Module, ...]
    mlp: tuple[nn.Module, ...]
    parallel: bool
    """Attention and MLP read the same input, so that there is no ``resid_mid``."""
    windows: tuple[int | None, ...]
    """For each layer, how many positions back it attends, its own included; None for all."""

    @property
    def d_model(self) -> int:
        """Width of the residual stream."""
        return int(self.model.config.get_text_config().hidden_size)

    def head(self, hidden: Tensor) -> Tensor:
        """Logits ``(..., vocab)`` of final, already normed hidden states ``(..., d_model)``."""
        logits = self.output(hidden)
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits  # type: ignore[no-any-return]

    def lens(self, hidden: Tensor) -> Tensor:
        """Logits ``(..., vocab)`` of residual-stream states ``(..., d_model)``: final norm, then head."""
        return self.head(self.final_norm(hidden))

    @property
    def vocab(self) -> int:
        """Number of logits."""
        return int(self.model.config.get_text_config().vocab_size)

    @functools.cached_property
    def _softcap(self) -> float | None:
        return getattr(self.model.config.get_text_config(), "final_logit_softcapping", None)

    def masks(self, full: Tensor, windowed: dict[int, Tensor]) -> Tensor | dict[str, Tensor]:
        """The attention mask as the decoder takes it.

        Args:
            full: additive mask ``(row, 1, query, key)`` without a window.
            windowed: the same for each window.
        """
        if self.family.masks == "one":
            window = self.windows[0]
            return full if window is None else windowed[window]
        sliding = next((windowed[window] for window in self.windows if window is not None), full)
        return {"full_attention": full, "sliding_attention": sliding}


def read_architecture(model: Any) -> Architecture:
    """Find the parts of a model.

    Raises:
        TargetRefusedError: its family has no row, or the row does not fit.
    """
    kind = str(model.config.model_type)
    family = FAMILIES.get(kind)
    if family is None:
        raise TargetRefusedError(
            f"models of type {kind!r} are not known (known: {', '.join(FAMILIES)}); to add one, write a row with the "
            "names of its parts in FAMILIES of marple/tools/engine/architecture.py: the check at load tells whether it "
            "fits"
        )
    try:
        decoder = _part(model, family.decoder)
        layers = tuple(_part(decoder, family.layers))
        return Architecture(
            family=family,
            model=model,
            decoder=decoder,
            layers=layers,
            final_norm=_part(decoder, family.final_norm),
            output=model.get_output_embeddings(),
            attention=tuple(_part(layer, family.attention) for layer in layers),
            mlp=tuple(_part(layer, family.mlp) for layer in layers),
            parallel=kind == "gpt_neox" and bool(model.config.use_parallel_residual),
            windows=_windows(model.config.get_text_config(), len(layers)),
        )
    except AttributeError as error:
        raise TargetRefusedError(f"the model of type {kind!r} lacks a part its family's row names: {error}") from error


def _part(root: Any, path: str) -> Any:
    for name in path.split("."):
        root = getattr(root, name)
    return root


def _windows(config: Any, layers: int) -> tuple[int | None, ...]:
    window = getattr(config, "sliding_window", None)
    kinds = getattr(config, "layer_types", None)
    if kinds is None:
        return (window,) * layers
    return tuple(window if kind == "sliding_attention" else None for kind in kinds)
