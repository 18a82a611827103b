"""Plain LoRA adapters: merged into the base weights, so that no adapter name or rank is left to see, or kept apart.

``W + (alpha / r) B A`` (Hu et al., 2021; ``alpha / sqrt(r)`` for rank-stabilised LoRA), computed in float32.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marple.errors import TargetRefusedError
from marple.sandboxes.weights import Tensor, Weights, copy_weights, open_regular, read_tensor, read_weights

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Matrix = npt.NDArray[np.float32]

__all__ = ["Adapter", "read_adapter", "write_adapter"]

_PREFIX = "base_model.model."
_SIDES = {".lora_A.weight": "A", ".lora_B.weight": "B"}
# Keys that do not change what is computed; every other key must be empty or the adapter is more than plain LoRA.
_HARMLESS = {
    "auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core",
    "parent_library", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
    "runtime_config", "target_modules", "task_type", "use_rslora",
}  # fmt: skip
_EXPECTED = {"bias": ("none", None), "init_lora_weights": (True, False, None, "gaussian", "orthogonal")}


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter that can be merged; its low-rank factors stay on disk until they are needed."""

    weights: Weights
    modules: Mapping[str, Mapping[str, str]]
    """For each base tensor's name, the adapter's tensor names ``A`` and ``B``."""
    alpha: float
    rank_stabilised: bool
    transposed: bool

    @property
    def changed(self) -> frozenset[str]:
        """Names of the base tensors it changes."""
        return frozenset(self.modules)

    def merge(self, name: str, tensor: Tensor, data: bytes) -> bytes:
        """The bytes of one base tensor with the adapter merged in, in the tensor's own type.

        Raises:
            TargetRefusedError: shapes or types do not fit, or the result is not finite.
        """
        import numpy as np

        left, right = (self._factor(name, side) for side in ("B", "A"))
        rank = right.shape[0]
        scale = self.alpha / (math.sqrt(rank) if self.rank_stabilised else rank)
        if left.shape[1] != rank:
            raise TargetRefusedError(f"the adapter's factors for {name!r} have ranks {left.shape[1]} and {rank}")
        delta = (left @ right) * np.float32(scale)
        delta = delta.T if self.transposed else delta
        if delta.shape != tensor.shape:
            raise TargetRefusedError(f"the adapter changes {name!r} with shape {delta.shape}, not {tensor.shape}")
        merged = _to_float32(data, tensor, name) + delta
        if not np.isfinite(merged).all():
            raise TargetRefusedError(f"merging the adapter makes {name!r} infinite or NaN")
        return _from_float32(merged, tensor.dtype)

    def _factor(self, name: str, side: str) -> Matrix:
        key = self.modules[name][side]
        tensor = self.weights.tensors[key]
        if len(tensor.shape) != 2:
            raise TargetRefusedError(f"the adapter's factor {key!r} is not a matrix")
        return _to_float32(read_tensor(self.weights, key), tensor, key)


def read_adapter(path: Path) -> Adapter:
    """Read a PEFT directory that holds a plain LoRA adapter.

    Raises:
        TargetRefusedError: it is anything else; the message says what is not supported.
        OSError: it cannot be read.
    """
    with open_regular(path / "adapter_config.json") as file:
        try:
            config = json.loads(file.read())
        except (ValueError, RecursionError) as error:
            raise TargetRefusedError(f"adapter_config.json is not JSON: {error}") from error
    _require_plain(config)
    weights = read_weights(path / "adapter_model.safetensors")
    return Adapter(
        weights=weights,
        modules=_modules(weights),
        alpha=float(config.get("lora_alpha", 8)),
        rank_stabilised=bool(config.get("use_rslora")),
        transposed=bool(config.get("fan_in_fan_out")),
    )


def write_adapter(adapter: Adapter, destination: Path) -> None:
    """Write it as a PEFT directory of its own that says no more than what it computes.

    Its tensors' names are those of the modules they change, which all adapters of a base have in common; the modules
    are listed one by one, whatever pattern chose them.
    """
    destination.mkdir()
    ranks = {
        name.removesuffix(".weight"): adapter.weights.tensors[sides["A"]].shape[0]
        for name, sides in sorted(adapter.modules.items())
    }
    rank = Counter(ranks.values()).most_common(1)[0][0]
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "inference_mode": True,
        "r": rank,
        "rank_pattern": {module: one for module, one in ranks.items() if one != rank},
        "lora_alpha": adapter.alpha,
        "use_rslora": adapter.rank_stabilised,
        "fan_in_fan_out": adapter.transposed,
        "target_modules": list(ranks),
    }
    (destination / "adapter_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    copy_weights(adapter.weights, destination / "adapter_model.safetensors")


def _require_plain(config: Any) -> None:
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise TargetRefusedError(f"the adapter's peft_type is {kind!r}; only LORA can be merged")
    for key, value in config.items():
        plain = value in _EXPECTED[key] if key in _EXPECTED else key in _HARMLESS or not value
        if not plain:
            raise TargetRefusedError(
                f"the adapter is not plain LoRA ({key} is {str(value)[:80]!r}); merge it with PEFT's "
                "merge_and_unload and give the merged model"
            )


def _modules(weights: Weights) -> dict[str, dict[str, str]]:
    modules: dict[str, dict[str, str]] = {}
    for key in weights.tensors:
        suffix = next((one for one in _SIDES if key.endswith(one)), None)
        if suffix is None or not key.startswith(_PREFIX):
            raise TargetRefusedError(f"the adapter holds {key!r}, which is not a LoRA factor of a linear layer")
        module = key.removeprefix(_PREFIX).removesuffix(suffix)
        modules.setdefault(f"{module}.weight", {})[_SIDES[suffix]] = key
    for name, sides in modules.items():
        if set(sides) != {"A", "B"}:
            raise TargetRefusedError(f"the adapter has only one of the two LoRA factors of {name!r}")
    return modules


def _to_float32(data: bytes, tensor: Tensor, name: str) -> Matrix:
    import numpy as np

    if tensor.dtype == "BF16":
        values = (np.frombuffer(data, "<u2").astype("<u4") << np.uint32(16)).view("<f4")
    elif tensor.dtype in ("F16", "F32"):
        values = np.frombuffer(data, "<f2" if tensor.dtype == "F16" else "<f4").astype("<f4")
    else:
        raise TargetRefusedError(f"{name!r} is stored as {tensor.dtype}; adapters merge in F16, BF16 and F32")
    return values.reshape(tensor.shape)


def _from_float32(values: Matrix, dtype: str) -> bytes:
    import numpy as np

    if dtype == "BF16":
        bits = np.ascontiguousarray(values, "<f4").view("<u4")
        # Round to nearest, ties to even, as torch does.
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        return rounded.astype("<u2").tobytes()
    return values.astype("<f2" if dtype == "F16" else "<f4").tobytes()
