"""Several LoRA adapters of one model as one: the changes that they make to the weights, added up.

``B1 A1 + B2 A2`` is ``[B1 B2] [A1; A2]``, so the sum of adapters of rank 64 and 64
is one of rank 128.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marple.errors import TargetRefusedError

if TYPE_CHECKING:
    import torch

__all__ = ["summed_adapter"]

_CONFIG = "adapter_config.json"
_WEIGHTS = "adapter_model.safetensors"
_SIDES = ("lora_A.weight", "lora_B.weight")
_MUST_BE_EMPTY = ("use_dora", "alpha_pattern", "rank_pattern", "modules_to_save", "fan_in_fan_out")


def summed_adapter(adapters: Sequence[Path], cache: Path) -> Path:
    """A directory in ``cache`` with one adapter that does what all of them do together; kept for the next time.

    Raises:
        TargetRefusedError: one of them is more than plain LoRA in one file.
    """
    digest = hashlib.sha256()
    for adapter in adapters:
        if not (adapter / _WEIGHTS).is_file():
            raise TargetRefusedError(f"adapters that are added up have one {_WEIGHTS} each; {str(adapter)!r} has none")
        for name in (_CONFIG, _WEIGHTS):
            digest.update(hashlib.sha256((adapter / name).read_bytes()).digest())
    folder = cache / "summed-adapters" / digest.hexdigest()[:16]
    if not (folder / _CONFIG).exists():
        _write(adapters, folder)
    return folder


def _write(adapters: Sequence[Path], folder: Path) -> None:
    from safetensors.torch import save_file

    configs = [_plain_config(adapter) for adapter in adapters]
    rank = sum(int(config["r"]) for config in configs)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(_stacked(adapters, configs), folder / _WEIGHTS)
    # Written last: its presence says that the weights are whole. Alpha over rank is 1, for B is scaled already.
    modules = sorted({name for config in configs for name in config["target_modules"]})
    whole = {"peft_type": "LORA", "r": rank, "lora_alpha": rank, "target_modules": modules, "bias": "none"}
    (folder / _CONFIG).write_text(json.dumps(whole), encoding="utf-8")


def _plain_config(adapter: Path) -> Mapping[str, Any]:
    config = json.loads((adapter / _CONFIG).read_text(encoding="utf-8"))
    odd = [key for key in _MUST_BE_EMPTY if config.get(key)]
    if config.get("peft_type") != "LORA" or config.get("bias", "none") != "none" or odd:
        raise TargetRefusedError(
            f"{str(adapter)!r} is more than plain LoRA ({', '.join(odd) or 'another kind, or biases'}) and cannot "
            "be added to another adapter; merge it with PEFT's merge_and_unload and give the merged model"
        )
    if not isinstance(config.get("target_modules"), list):
        raise TargetRefusedError(f"{str(adapter)!r} does not list its target_modules, so it cannot be added to another")
    return dict(config)


def _stacked(adapters: Sequence[Path], configs: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    import torch
    from safetensors.torch import load_file

    loaded = [load_file(adapter / _WEIGHTS) for adapter in adapters]
    stems = sorted({_stem(key, adapter) for adapter, weights in zip(adapters, loaded, strict=True) for key in weights})
    stacked = {}
    for stem in stems:
        one = next(weights for weights in loaded if stem + _SIDES[0] in weights)
        shapes = one[stem + _SIDES[0]].shape[1], one[stem + _SIDES[1]].shape[0]
        parts: tuple[list[torch.Tensor], list[torch.Tensor]] = ([], [])
        for weights, config in zip(loaded, configs, strict=True):
            rank = int(config["r"])
            scale = float(config["lora_alpha"]) / (math.sqrt(rank) if config.get("use_rslora") else rank)
            # A module that only some of them change gets rows of zeros from the others, so that all have one rank.
            down = weights.get(stem + _SIDES[0], torch.zeros(rank, shapes[0])).float()
            up = weights.get(stem + _SIDES[1], torch.zeros(shapes[1], rank)).float()
            parts[0].append(down)
            parts[1].append(scale * up)
        stacked[stem + _SIDES[0]] = torch.cat(parts[0], dim=0).contiguous()
        stacked[stem + _SIDES[1]] = torch.cat(parts[1], dim=1).contiguous()
    return stacked


def _stem(key: str, adapter: Path) -> str:
    for side in _SIDES:
        if key.endswith(side):
            return key.removesuffix(side)
    raise TargetRefusedError(f"{str(adapter)!r} holds {key!r}, which is no factor of plain LoRA")
