"""Load an SAE whatever format its folder is in."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from marple.errors import UsageError
from marple.tools.saes.cards import CARDS, read_cards
from marple.tools.saes.dictionary_learning import read_dictionary_learning
from marple.tools.saes.explanations import EXPLANATIONS, read_explanations
from marple.tools.saes.gemma_scope import read_gemma_scope_1, read_gemma_scope_2
from marple.tools.saes.sae import SAE
from marple.tools.saes.saelens import CONFIG, WEIGHTS, read_saelens

__all__ = ["load_sae"]

_FORMATS = (
    f"SAELens ({CONFIG} and {WEIGHTS}), Gemma Scope (params.npz or params.safetensors), "
    "dictionary_learning (ae.pt and config.json)"
)


def load_sae(
    path: Path | str,
    *,
    hook_name: str | None = None,
    norm_scaling_factor: float | None = None,
    device: torch.device | str = "cpu",
) -> SAE:
    """The SAE in a folder, with its cards and explanations where they lie beside it.

    Args:
        path: the folder, or the file of weights in it.
        hook_name: where it reads, in place of what its files say, for example ``blocks.20.hook_resid_post``.
        norm_scaling_factor: see ``read_saelens``.
        device: where its tensors go.

    Raises:
        UsageError: there is no SAE in a known format, or it is broken, pickled, or asks for what is not known here.
    """
    folder = Path(path) if Path(path).is_dir() else Path(path).parent
    if not Path(path).exists():
        raise UsageError(f"there is no SAE at {str(path)!r}")
    sae = _read(folder, hook_name, norm_scaling_factor)
    if hook_name is not None:
        sae = dataclasses.replace(sae, hook_name=hook_name)
    if (folder / CARDS).is_file():
        sae = dataclasses.replace(sae, cards=read_cards(folder / CARDS, features=sae.d_sae))
    if (folder / EXPLANATIONS).is_file():
        sae = dataclasses.replace(sae, explanations=read_explanations(folder / EXPLANATIONS, features=sae.d_sae))
    return sae if torch.device(device) == torch.device("cpu") else sae.to(device)


def _read(folder: Path, hook_name: str | None, norm_scaling_factor: float | None) -> SAE:
    there = {one.name for one in folder.iterdir()}
    if {CONFIG, WEIGHTS} <= there:
        return read_saelens(folder, norm_scaling_factor=norm_scaling_factor)
    if "params.npz" in there:
        return read_gemma_scope_1(folder, hook_name=hook_name)
    if "params.safetensors" in there:
        return read_gemma_scope_2(folder, hook_name=hook_name)
    if {"ae.pt", "config.json"} <= there:
        return read_dictionary_learning(folder, hook_name=hook_name)
    pickled = sorted(name for name in there if Path(name).suffix in (".pt", ".pth", ".pkl", ".bin", ".ckpt"))
    reason = f"it has {', '.join(sorted(there)[:8]) or 'no files'}"
    if pickled:
        reason = f"{pickled[0]} may be a pickle, which is not loaded"
    raise UsageError(f"{str(folder)!r} holds no SAE in a known format ({reason}); known are {_FORMATS}")
