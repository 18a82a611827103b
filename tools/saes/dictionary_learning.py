"""The files of the dictionary_learning library (Marks, Karvonen & Mueller 2024): ``ae.pt`` and ``config.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from marple.errors import UsageError
from marple.tools.saes.files import read_json, read_state, required
from marple.tools.saes.sae import SAE, Architecture
from marple.tools.saes.weights import Weights

__all__ = ["read_dictionary_learning"]

_CLASSES: dict[str, Architecture] = {
    "AutoEncoder": "standard",
    "AutoEncoderNew": "standard",
    "GatedAutoEncoder": "gated",
    "JumpReluAutoEncoder": "jumprelu",
    "AutoEncoderTopK": "topk",
    # At inference both use one threshold for all features instead of a top-k over the batch.
    "BatchTopKSAE": "jumprelu",
    "MatryoshkaBatchTopKSAE": "jumprelu",
}
_WITHOUT_INPUT_BIAS = ("AutoEncoderNew", "JumpReluAutoEncoder")
_SUBMODULES = {"resid_post": "hook_resid_post", "resid_pre": "hook_resid_pre", "mlp_out": "hook_mlp_out",
               "attention_out": "hook_attn_out", "attn_out": "hook_attn_out"}  # fmt: skip


def read_dictionary_learning(folder: Path, *, hook_name: str | None = None) -> SAE:
    """The SAE in a folder with ``ae.pt`` and ``config.json``.

    Args:
        folder: it.
        hook_name: the site, where the config does not tell it.

    Raises:
        UsageError: a file is broken or pickled, or the class is not known here.
    """
    path = folder / "ae.pt"
    trainer = read_json(folder / "config.json").get("trainer", {})
    name = trainer.get("dict_class")
    if name not in _CLASSES:
        raise UsageError(f"{str(folder)!r} has the dict_class {name!r}; known are {', '.join(_CLASSES)}")
    state = read_state(path)
    encoder = state["W_enc"] if "W_enc" in state else required(state, "encoder.weight", path).T
    decoder = state["W_dec"] if "W_dec" in state else required(state, "decoder.weight", path).T
    architecture = _CLASSES[name]
    weights = Weights(
        W_enc=encoder,
        W_dec=decoder,
        b_enc=_first(state, ("mag_bias",) if architecture == "gated" else ("b_enc", "encoder.bias"), path),
        b_dec=_first(state, ("b_dec", "bias", "decoder_bias", "decoder.bias"), path),
        threshold=_threshold(state, encoder.shape[1], path) if architecture == "jumprelu" else None,
        b_gate=required(state, "gate_bias", path) if architecture == "gated" else None,
        r_mag=required(state, "r_mag", path) if architecture == "gated" else None,
    )
    return SAE(
        architecture=architecture,
        weights=weights,
        k=_k(state, trainer) if architecture == "topk" else None,
        apply_b_dec_to_input=name not in _WITHOUT_INPUT_BIAS,
        hook_name=hook_name or _hook_name(trainer, folder),
        metadata={"model_name": trainer.get("lm_name"), "dict_class": name},
    )


def _first(state: Mapping[str, Tensor], names: tuple[str, ...], path: Path) -> Tensor:
    return required(state, next((name for name in names if name in state), names[0]), path)


def _k(state: Mapping[str, Tensor], trainer: Mapping[str, Any]) -> int | None:
    value = state["k"].item() if "k" in state else trainer.get("k")
    return None if value is None else int(value)


def _threshold(state: Mapping[str, Tensor], features: int, path: Path) -> Tensor:
    threshold = required(state, "threshold", path)
    if threshold.ndim == 0:
        threshold = threshold.expand(features)
    if bool((threshold < 0).any()):
        raise UsageError(
            f"{str(path)!r} has a negative threshold, so none was estimated in training and every feature would be "
            "active; train it beyond threshold_start_step"
        )
    return threshold


def _hook_name(trainer: Mapping[str, Any], folder: Path) -> str:
    layer, submodule = trainer.get("layer"), str(trainer.get("submodule_name") or "resid_post")
    kind = re.sub(r"_layer_\d+$", "", submodule)
    if not isinstance(layer, int) or kind not in _SUBMODULES:
        raise UsageError(
            f"config.json in {str(folder)!r} says layer {layer!r} and submodule {submodule!r}; known submodules are "
            f'{", ".join(_SUBMODULES)}; or give hook_name, such as "blocks.3.hook_resid_post"'
        )
    return f"blocks.{layer}.{_SUBMODULES[kind]}"
