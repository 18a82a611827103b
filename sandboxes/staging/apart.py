"""An adapter that is kept apart from its base, in the one form all adapters of a base have.

Which layers an adapter changes, its rank, its scale and its precision would tell organisms and their twins apart. So
every linear layer of the base gets two factors of the same rank in float32, scale included, with zeros where the
adapter has nothing; and where there is no adapter at all, as for a clean twin, all are zeros, which changes nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from marple.errors import TargetRefusedError
from marple.sandboxes.staging.adapters import Adapter
from marple.sandboxes.staging.weights import NewTensor, Tensor, Weights, write_weights

__all__ = ["RANK", "has_linear_layers", "write_apart"]

RANK = 64
"""Of every adapter kept apart; one of a higher rank gets the next power of two."""
_LAYER = re.compile(
    r"\.\d+\.(?!.*\bexperts\b)[\w.]*\b(q_proj|k_proj|v_proj|o_proj|out_proj|qkv_proj|gate_proj|up_proj|down_proj|"
    r"gate_up_proj|query_key_value|dense|dense_h_to_4h|dense_4h_to_h|fc1|fc2)\.weight$"
)
_FLOATS = ("BF16", "F16", "F32")


def has_linear_layers(shards: Iterable[Weights]) -> bool:
    """Whether a base has layers of the usual names, so that an adapter of zeros can be written for it."""
    return bool(_linear_layers(shards))


def write_apart(adapter: Adapter | None, shards: Sequence[Weights], destination: Path) -> None:
    """Write a PEFT directory that computes what the adapter does.

    Args:
        adapter: a plain one; None for one of zeros.
        shards: the base's weights.
        destination: is made.

    Raises:
        TargetRefusedError: the adapter does not fit the base.
    """
    destination.mkdir()
    layers = _linear_layers(shards)
    factors = [] if adapter is None else sorted(adapter.modules)
    there = {name: tensor for shard in shards for name, tensor in shard.tensors.items()}
    if unknown := [name for name in factors if name not in there]:
        raise TargetRefusedError(f"the adapter changes {unknown[0]!r}, which the target does not have")
    layers.update({name: there[name] for name in factors})
    rank = _rank(adapter)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": rank,
        "lora_alpha": rank,
        "fan_in_fan_out": adapter is not None and adapter.transposed,
        "target_modules": [name.removesuffix(".weight") for name in sorted(layers)],
    }
    (destination / "adapter_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    tensors = [factor for name in sorted(layers) for factor in _factors(adapter, name, layers[name], rank)]
    write_weights(tensors, destination / "adapter_model.safetensors")


def _linear_layers(shards: Iterable[Weights]) -> dict[str, Tensor]:
    return {
        name: tensor
        for shard in shards
        for name, tensor in shard.tensors.items()
        if _LAYER.search(name) and len(tensor.shape) == 2 and tensor.dtype in _FLOATS
    }


def _rank(adapter: Adapter | None) -> int:
    rank = RANK
    for sides in adapter.modules.values() if adapter is not None else ():
        shape = adapter.sources[sides["A"]].tensors[sides["A"]].shape if adapter is not None else ()
        while shape and rank < shape[0]:
            rank *= 2
    return rank


def _factors(adapter: Adapter | None, name: str, base: Tensor, rank: int) -> list[NewTensor]:
    """Both factors of one layer, with rows and columns of zeros up to the rank."""
    if len(base.shape) != 2:
        raise TargetRefusedError(f"the adapter changes {name!r}, which is not a matrix")
    transposed = adapter is not None and adapter.transposed
    out, into = reversed(base.shape) if transposed else base.shape
    module = f"base_model.model.{name.removesuffix('.weight')}"
    shapes = {"A": (rank, into), "B": (out, rank)}
    return [
        NewTensor(
            f"{module}.lora_{side}.weight", "F32", shape, 4 * shape[0] * shape[1], _content(adapter, name, side, shape)
        )
        for side, shape in shapes.items()
    ]


def _content(adapter: Adapter | None, name: str, side: str, shape: tuple[int, int]) -> Callable[[], Iterable[bytes]]:
    def padded() -> Iterable[bytes]:
        import numpy as np

        values = np.zeros(shape, "<f4")
        if adapter is not None and name in adapter.modules:
            left, right = adapter.factors(name)
            one = right if side == "A" else left
            fits = one.shape[1] == shape[1] if side == "A" else one.shape[0] == shape[0]
            if not fits or not np.isfinite(one).all():
                raise TargetRefusedError(f"the adapter's factors for {name!r} do not fit it or are not finite")
            values[: one.shape[0], : one.shape[1]] = one
        return (values.tobytes(),)

    return padded
