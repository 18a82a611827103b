"""The files of Gemma Scope 1 (Lieberum et al. 2024) and 2: JumpReLU, the input taken without the decoder's bias."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from marple.errors import UsageError
from marple.tools.saes.files import layer_in, read_json, read_npz, read_safetensors, required
from marple.tools.saes.sae import SAE
from marple.tools.saes.weights import Weights

__all__ = ["read_gemma_scope_1", "read_gemma_scope_2"]

_KINDS = {"res": "hook_resid_post", "mlp": "hook_mlp_out", "att": "attn.hook_z"}
_FOLDERS = {"resid_post": "hook_resid_post", "attn_out": "attn.hook_z", "mlp_out": "hook_mlp_out"}
_RELEASE = re.compile(r"gemma-scope-(\d+b-(?:pt|it))-(res|mlp|att)")
_RELEASE_2 = re.compile(r"gemma-scope-2-(\w+-(?:pt|it))")


def read_gemma_scope_1(folder: Path, *, hook_name: str | None = None) -> SAE:
    """The SAE in ``.../gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71`` with its ``params.npz``.

    The file says nothing about model and site, so they come from the path.

    Args:
        folder: the innermost folder.
        hook_name: the site, where the path does not tell it.

    Raises:
        UsageError: the file is broken, or the site is not to be told.
    """
    path = folder / "params.npz"
    tensors = _upper_case(read_npz(path))
    scaling = tensors.pop("scaling_factor", None)
    if scaling is not None and not torch.allclose(scaling, torch.ones_like(scaling)):
        raise UsageError(f"{str(path)!r} holds a scaling_factor other than 1, which is not known here")
    where = folder.absolute().as_posix()
    if "embedding" in where.rpartition("gemma-scope")[2]:
        raise UsageError(
            f"{str(folder)!r} is an SAE of embeddings, whose scale its file does not state; use a layer's SAE"
        )
    release, layer = _RELEASE.search(where), layer_in(where)
    if hook_name is None and (release is None or layer is None):
        raise UsageError(
            f"the path {str(folder)!r} does not tell where this SAE reads; keep the folders of its release "
            '("gemma-scope-2b-pt-res/layer_20/width_16k/average_l0_71") or give hook_name, such as '
            '"blocks.20.hook_resid_post"'
        )
    model = f"gemma-2-{release[1]}".removesuffix("-pt") if release else None
    return _jumprelu(tensors, path, hook_name or f"blocks.{layer}.{_KINDS[release[2]] if release else ''}", model)


def read_gemma_scope_2(folder: Path, *, hook_name: str | None = None) -> SAE:
    """The SAE or transcoder in ``.../resid_post/layer_9_width_16k_l0_small`` with its ``params.safetensors``.

    Its ``config.json`` may be missing; everything is then inferred from the path.

    Args:
        folder: the innermost folder.
        hook_name: the site, where the path does not tell it.

    Raises:
        UsageError: the file is broken or of another architecture, or the site is not to be told.
    """
    path = folder / "params.safetensors"
    tensors = _upper_case(read_safetensors(path))
    config: dict[str, Any] = read_json(folder / "config.json") if (folder / "config.json").is_file() else {}
    if config.get("architecture", "jump_relu") != "jump_relu":
        raise UsageError(f"{str(folder)!r} has the architecture {config['architecture']!r}, not jump_relu")
    where = folder.absolute().as_posix()
    inside = where.rpartition("gemma-scope-2")[2]
    if "clt" in re.split(r"[/_]", inside) or tensors.get("W_dec", torch.zeros(1, 1)).ndim != 2:
        raise UsageError(
            f"{str(folder)!r} is a cross-layer transcoder, which writes to many layers; only SAEs of one site fit"
        )
    layer, model = layer_in(where), config.get("model_name") or _model_2(where)
    if "transcoder" in inside:
        return _transcoder(tensors, path, layer, model, affine=config.get("affine_connection"))
    place = next((hook for kind, hook in _FOLDERS.items() if kind in inside), None)
    inferred = f"blocks.{layer}.{place}" if place and layer is not None else config.get("hf_hook_point_in")
    if hook_name is None and inferred is None:
        raise UsageError(
            f"neither the path {str(folder)!r} nor a config.json tells where this SAE reads; keep the folders of its "
            'release ("resid_post/layer_9_width_16k_l0_small") or give hook_name'
        )
    return _jumprelu(tensors, path, hook_name or str(inferred), model)


def _upper_case(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {"W_" + name[2:] if name.startswith("w_") else name: value for name, value in tensors.items()}


def _model_2(where: str) -> str | None:
    release = _RELEASE_2.search(where)
    return f"google/gemma-3-{release[1]}" if release else None


def _jumprelu(tensors: dict[str, Tensor], path: Path, hook_name: str, model: str | None) -> SAE:
    return SAE(
        architecture="jumprelu",
        weights=_weights(tensors, path),
        apply_b_dec_to_input=False,
        hook_name=hook_name,
        metadata={"model_name": model, "prepend_bos": True},
    )


def _transcoder(tensors: dict[str, Tensor], path: Path, layer: int | None, model: str | None, *, affine: object) -> SAE:
    skip = tensors.get("affine_skip_connection")
    if affine and skip is None:
        raise UsageError(f"{str(path)!r} should have an affine_skip_connection, by its config.json, and has none")
    if skip is not None:
        # Stored as (d_in, d_out).
        tensors["W_skip"] = skip.T
    return SAE(
        architecture="jumprelu",
        weights=_weights(tensors, path),
        apply_b_dec_to_input=False,
        hook_name=f"blocks.{layer}.hook_mlp_in",
        hook_name_out=f"blocks.{layer}.hook_mlp_out",
        metadata={"model_name": model, "prepend_bos": True},
    )


def _weights(tensors: dict[str, Tensor], path: Path) -> Weights:
    for name in ("W_enc", "W_dec", "b_enc", "b_dec", "threshold"):
        required(tensors, name, path)
    return Weights.from_tensors(tensors)
