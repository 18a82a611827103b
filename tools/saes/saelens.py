"""The directory format of SAELens, of version 6 and before: ``cfg.json`` and ``sae_weights.safetensors``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from marple.errors import UsageError
from marple.tools.saes.files import read_json, read_safetensors, required
from marple.tools.saes.sae import SAE
from marple.tools.saes.weights import Weights

__all__ = ["CONFIG", "WEIGHTS", "read_saelens", "write_saelens"]

CONFIG = "cfg.json"
WEIGHTS = "sae_weights.safetensors"

_ARCHITECTURES = {
    "standard": "standard",
    "jumprelu": "jumprelu",
    "topk": "topk",
    "gated": "gated",
    "transcoder": "standard",
    "skip_transcoder": "standard",
    "jumprelu_transcoder": "jumprelu",
    "jumprelu_skip_transcoder": "jumprelu",
}
_NORMALIZATIONS = ("none", "layer_norm", "constant_norm_rescale", "expected_average_only_in")
_RENAMED = {"hook_point": "hook_name", "hook_point_head_index": "hook_head_index", "activation_fn_str": "activation_fn"}
_SETTINGS = {"architecture", "d_in", "d_sae", "d_out", "dtype", "device", "k", "activation_fn", "activation_fn_kwargs",
             "apply_b_dec_to_input", "normalize_activations", "reshape_activations", "rescale_acts_by_decoder_norm",
             "hook_name", "hook_name_out", "metadata"}  # fmt: skip
"""What is no metadata in a config of before version 6, which had no place of its own for metadata."""


def read_saelens(folder: Path, *, norm_scaling_factor: float | None = None) -> SAE:
    """The SAE in a directory.

    Args:
        folder: it.
        norm_scaling_factor: what the activations were multiplied by in training, for a file that says they were
            (``expected_average_only_in``) but not by what.

    Raises:
        UsageError: the directory is broken, or asks for something that is not known here.
    """
    config = _modern(read_json(folder / CONFIG))
    architecture = config.get("architecture", "standard")
    if architecture not in _ARCHITECTURES:
        raise UsageError(
            f"the SAE in {str(folder)!r} has the architecture {architecture!r}; known are {', '.join(_ARCHITECTURES)}"
        )
    normalization = _normalization(config, folder, norm_scaling_factor)
    weights = _weights(config, folder)
    if normalization == "expected_average_only_in":
        assert norm_scaling_factor is not None
        weights, normalization = weights.fold_scaling(norm_scaling_factor), "none"
    if config.get("rescale_acts_by_decoder_norm"):
        weights = weights.fold_decoder_norm()
    metadata = dict(config.get("metadata", {}))
    return SAE(
        architecture=_ARCHITECTURES[architecture],  # type: ignore[arg-type]
        weights=weights,
        k=int(config["k"]) if architecture == "topk" and config.get("k") is not None else None,
        apply_b_dec_to_input=bool(config.get("apply_b_dec_to_input", "transcoder" not in architecture)),
        normalize_activations=normalization,  # type: ignore[arg-type]
        hook_name=str(metadata.pop("hook_name", None) or ""),
        hook_name_out=str(metadata.pop("hook_name_out", None) or ""),
        metadata=metadata,
    )


def write_saelens(sae: SAE, folder: Path, *, dtype: torch.dtype = torch.float32) -> None:
    """Write an SAE as SAELens 6 does, so that it and other people's tools read it.

    Args:
        sae: the autoencoder.
        folder: made if it is not there.
        dtype: in which the tensors are stored.

    Raises:
        UsageError: a transcoder with settings that SAELens cannot express.
    """
    from safetensors.torch import save

    config: dict[str, Any] = {
        "d_in": sae.d_in,
        "d_sae": sae.d_sae,
        "dtype": str(dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": sae.normalize_activations,
        "reshape_activations": "none",
        # Without a version from 6 on, readers take the file for the older layout with its other defaults.
        "metadata": {**sae.metadata, "sae_lens_version": "6.0.0", "sae_lens_training_version": None},
        "architecture": _saelens_name(sae),
    }
    config["metadata"]["hook_name"] = sae.hook_name
    if sae.is_transcoder:
        config["d_out"] = sae.d_out
        config["metadata"]["hook_name_out"] = sae.hook_name_out
    if sae.architecture == "topk":
        config |= {"k": sae.k, "rescale_acts_by_decoder_norm": False}
    tensors = {name: value.cpu().to(dtype).contiguous() for name, value in sae.weights.items()}
    if sae.architecture == "gated":
        tensors["b_mag"] = tensors.pop("b_enc")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(save(tensors))
    (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", encoding="utf-8")


def _saelens_name(sae: SAE) -> str:
    if not sae.is_transcoder:
        return sae.architecture
    if sae.architecture not in ("standard", "jumprelu"):
        raise UsageError(f"a transcoder of the architecture {sae.architecture} has no name in the format of SAELens")
    kind = "skip_transcoder" if sae.weights.W_skip is not None else "transcoder"
    return kind if sae.architecture == "standard" else f"jumprelu_{kind}"


def _modern(config: dict[str, Any]) -> dict[str, Any]:
    """A config in the layout of version 6, whatever version wrote it."""
    version = str(config.get("metadata", {}).get("sae_lens_version") or config.get("sae_lens_version") or "0")
    if int(version.partition(".")[0]) >= 6:
        return config
    old = {_RENAMED.get(key, key): value for key, value in config.items()}
    old["metadata"] = {**{key: value for key, value in old.items() if key not in _SETTINGS}, **old.get("metadata", {})}
    for key in ("hook_name", "hook_name_out"):
        if old.get(key):
            old["metadata"][key] = old[key]
    # Every version before 6 took the decoder's bias from the input unless it said otherwise.
    old.setdefault("apply_b_dec_to_input", True)
    activation = old.get("activation_fn") or "relu"
    settings = old.get("activation_fn_kwargs") or {}
    if activation == "topk":
        old |= {"architecture": "topk", "k": settings.get("k", old.get("k"))}
    elif activation != "relu":
        raise UsageError(f"the SAE's activation function is {activation!r}; known are relu and topk")
    reshape = "hook_z" if "hook_z" in str(old.get("hook_name")) else "none"
    old.setdefault("reshape_activations", reshape)
    return old


def _normalization(config: Mapping[str, Any], folder: Path, factor: float | None) -> str:
    value = config.get("normalize_activations")
    if isinstance(value, bool) or value is None:
        value = "expected_average_only_in" if value else "none"
    if value not in _NORMALIZATIONS:
        raise UsageError(
            f"the SAE in {str(folder)!r} normalizes activations by {value!r}; known are {', '.join(_NORMALIZATIONS)}"
        )
    if value == "expected_average_only_in" and factor is None:
        raise UsageError(
            f"the SAE in {str(folder)!r} was trained on activations times a factor ({value}) that its files do not "
            "hold; give norm_scaling_factor, or fold it in SAELens (fold_activation_norm_scaling_factor) and save again"
        )
    reshape = config.get("reshape_activations") or "none"
    if reshape not in ("none", "hook_z"):
        raise UsageError(f"the SAE in {str(folder)!r} reshapes activations by {reshape!r}; known are none and hook_z")
    return str(value)


def _weights(config: Mapping[str, Any], folder: Path) -> Weights:
    path = folder / WEIGHTS
    stored = {name: value.to(torch.float32) for name, value in read_safetensors(path).items()}
    for name in ("scaling_factor", "finetuning_scaling_factor"):
        scaling = stored.pop(name, None)
        if scaling is not None and not torch.allclose(scaling, torch.ones_like(scaling)):
            raise UsageError(f"{str(path)!r} holds a {name} other than 1, which is not known here")
    for name in ("W_enc", "W_dec", "b_dec"):
        required(stored, name, path)
    stored["b_enc"] = required(stored, "b_mag" if config.get("architecture") == "gated" else "b_enc", path)
    weights = Weights.from_tensors(stored)
    given = (config.get("d_in"), config.get("d_sae"))
    if None not in given and given != tuple(weights.W_enc.shape):
        raise UsageError(
            f"{CONFIG} in {str(folder)!r} says d_in {given[0]} and d_sae {given[1]}, but W_enc is "
            f"{tuple(weights.W_enc.shape)}"
        )
    return weights
