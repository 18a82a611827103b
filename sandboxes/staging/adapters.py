"""LoRA adapters: merged into the base weights, so that no adapter name or rank is left to see, or kept apart.

``W + (alpha / r) B A`` (Hu et al., 2021); ``alpha / sqrt(r)`` where it is rank-stabilised (Kalajdzievski, 2023); with
DoRA (Liu et al., 2024) each row of that is scaled to the length that was learned for it. All in float32. Tensors an
adapter replaces whole (PEFT's ``bias`` and ``modules_to_save``) are taken as they are.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marple.errors import TargetRefusedError
from marple.sandboxes.staging.numbers import from_float32, to_float32
from marple.sandboxes.staging.rewriting import from_json, read_small, resolve
from marple.sandboxes.staging.weights import Tensor, Weights, read_tensor, read_weights

if TYPE_CHECKING:
    from marple.sandboxes.staging.numbers import Matrix

__all__ = ["Adapter", "read_adapter"]

_PREFIX = "base_model.model."
_SIDES = {".lora_A.weight": "A", ".lora_B.weight": "B", ".lora_magnitude_vector": "lengths"}
_PLAIN_NAME = re.compile(r"[\w.]+\Z")
_WAY_OUT = "merge it with PEFT's merge_and_unload and give the merged model"
# Keys that do not change what is computed, or in a way that is followed here; every other key must be empty.
_FOLLOWED = {
    "alpha_pattern", "auto_mapping", "base_model_name_or_path", "exclude_modules", "fan_in_fan_out", "inference_mode",
    "layers_pattern", "layers_to_transform", "lora_alpha", "lora_dropout", "megatron_core", "modules_to_save",
    "parent_library", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
    "runtime_config", "target_modules", "task_type", "use_dora", "use_rslora",
}  # fmt: skip
_EXPECTED = {
    "bias": ("none", "all", "lora_only", None),
    "init_lora_weights": (True, False, None, "gaussian", "orthogonal"),
}


@dataclass(frozen=True)
class Adapter:
    """A LoRA adapter that can be merged; its tensors stay on disk until they are needed."""

    sources: Mapping[str, Weights]
    """For each of its tensors, the file that holds it."""
    modules: Mapping[str, Mapping[str, str]]
    """For each base tensor's name, the adapter's tensor names ``A`` and ``B``, and ``lengths`` with DoRA."""
    replaced: Mapping[str, str]
    """For each base tensor that it brings whole, the adapter's tensor name."""
    alpha: float
    alphas: Mapping[str, float]
    """Modules, by their whole name or its last parts, with another alpha."""
    rank_stabilised: bool
    transposed: bool
    """Whether the base keeps its matrices as ``(in, out)``."""

    @property
    def changed(self) -> frozenset[str]:
        """Names of the base tensors it changes."""
        return frozenset(self.modules) | frozenset(self.replaced)

    @property
    def plain(self) -> bool:
        """Whether it is two factors a layer and nothing else."""
        return not self.replaced and all(set(sides) == {"A", "B"} for sides in self.modules.values())

    def merge(self, name: str, tensor: Tensor, data: bytes) -> bytes:
        """The bytes of one base tensor with the adapter merged in, in the tensor's own type.

        Raises:
            TargetRefusedError: shapes or types do not fit, or the result is not finite.
        """
        merged = self._replacement(name) if name in self.replaced else self._sum(name, to_float32(data, tensor, name))
        if merged.shape != tensor.shape:
            raise TargetRefusedError(f"the adapter changes {name!r} with shape {merged.shape}, not {tensor.shape}")
        return from_float32(merged, tensor.dtype, name)

    def factors(self, name: str) -> tuple[Matrix, Matrix]:
        """``B`` times the scale, ``(out, rank)``, and ``A``, ``(rank, in)``, of one base tensor."""
        import numpy as np

        left, right = self.read(self.modules[name]["B"]), self.read(self.modules[name]["A"])
        if left.ndim != 2 or right.ndim != 2:
            raise TargetRefusedError(f"the adapter's factors for {name!r} are not matrices")
        rank = right.shape[0]
        if left.shape[1] != rank or rank == 0:
            raise TargetRefusedError(f"the adapter's factors for {name!r} have ranks {left.shape[1]} and {rank}")
        module = name.removesuffix(".weight")
        alpha = next((one for key, one in self.alphas.items() if f".{module}".endswith(f".{key}")), self.alpha)
        return left * np.float32(alpha / (math.sqrt(rank) if self.rank_stabilised else rank)), right

    def read(self, key: str) -> Matrix:
        """One of the adapter's own tensors."""
        weights = self.sources[key]
        return to_float32(read_tensor(weights, key), weights.tensors[key], key)

    def _replacement(self, name: str) -> Matrix:
        return self.read(self.replaced[name])

    def _sum(self, name: str, base: Matrix) -> Matrix:
        import numpy as np

        left, right = self.factors(name)
        delta = (left @ right).T if self.transposed else left @ right
        if delta.shape != base.shape:
            raise TargetRefusedError(f"the adapter changes {name!r} with shape {delta.shape}, not {base.shape}")
        merged: Matrix = base + delta
        if "lengths" not in self.modules[name]:
            return merged
        rows = merged.T if self.transposed else merged
        lengths = self.read(self.modules[name]["lengths"]).reshape(-1)
        if lengths.shape != rows.shape[:1]:
            raise TargetRefusedError(f"the adapter has {lengths.size} lengths for the rows of {name!r}")
        with np.errstate(divide="ignore", invalid="ignore"):
            rows = rows * (lengths / np.linalg.norm(rows, axis=1))[:, None]
        stretched: Matrix = rows.T if self.transposed else rows
        return stretched


def read_adapter(path: Path, files: Iterable[str] = ("adapter_model.safetensors",)) -> Adapter:
    """Read a PEFT directory that holds a LoRA adapter.

    Args:
        path: the directory.
        files: its weights.

    Raises:
        TargetRefusedError: it is of a kind that cannot be merged exactly; the message says what is not supported.
        OSError: it cannot be read.
    """
    config = from_json(read_small(resolve(path / "adapter_config.json")), "adapter_config.json")
    _require_supported(config)
    sources: dict[str, Weights] = {}
    for weights in (read_weights(resolve(path / name)) for name in files):
        if twice := sources.keys() & weights.tensors.keys():
            raise TargetRefusedError(f"tensor {min(twice)!r} is in two of the adapter's files")
        sources.update(dict.fromkeys(weights.tensors, weights))
    whole = {key for key in sources if _is_whole(key, config)}
    return Adapter(
        sources=sources,
        modules=_modules(set(sources) - whole, dora=bool(config.get("use_dora"))),
        replaced={_base_name(key): key for key in sorted(whole)},
        alpha=_number(config.get("lora_alpha", 8), "lora_alpha"),
        alphas=_alphas(config.get("alpha_pattern") or {}),
        rank_stabilised=bool(config.get("use_rslora")),
        transposed=bool(config.get("fan_in_fan_out")),
    )


def _require_supported(config: Any) -> None:
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        kind = config.get("peft_type") if isinstance(config, dict) else None
        raise TargetRefusedError(f"the adapter's peft_type is {kind!r}; only LORA can be merged: {_WAY_OUT}")
    for key, value in config.items():
        known = value in _EXPECTED[key] if key in _EXPECTED else key in _FOLLOWED or not value
        if not known:
            raise TargetRefusedError(f"the adapter is more than LoRA ({key} is {str(value)[:80]!r}); {_WAY_OUT}")


def _is_whole(key: str, config: Mapping[str, Any]) -> bool:
    """Whether it takes the place of a base tensor: a bias that was trained, or a module that was saved."""
    if any(key.endswith(suffix) for suffix in _SIDES) or not key.startswith(_PREFIX):
        return False
    saved = config.get("modules_to_save") or ()
    module = _base_name(key).rpartition(".")[0]
    if any(module.endswith(one) for one in saved if isinstance(one, str)):
        return True
    return config.get("bias") in ("all", "lora_only") and key.endswith(".bias") and "lora_" not in key


def _base_name(key: str) -> str:
    return key.removeprefix(_PREFIX).replace(".base_layer.", ".").replace(".modules_to_save.", ".")


def _alphas(patterns: Any) -> dict[str, float]:
    if not isinstance(patterns, dict) or not all(_PLAIN_NAME.match(key) for key in patterns):
        # PEFT takes them as regular expressions, which a stranger could make endless.
        raise TargetRefusedError(f"the adapter's alpha_pattern is not of plain module names; {_WAY_OUT}")
    return {key: _number(value, "alpha_pattern") for key, value in patterns.items()}


def _number(value: Any, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise TargetRefusedError(f"the adapter's {key} is {str(value)[:80]!r}, not a number")
    return float(value)


def _modules(keys: Iterable[str], *, dora: bool) -> dict[str, dict[str, str]]:
    modules: dict[str, dict[str, str]] = {}
    for key in sorted(keys):
        suffix = next((one for one in _SIDES if key.endswith(one)), None)
        if suffix is None or not key.startswith(_PREFIX):
            raise TargetRefusedError(
                f"the adapter holds {key!r}, which is not a LoRA factor of a linear layer; {_WAY_OUT}"
            )
        module = key.removeprefix(_PREFIX).removesuffix(suffix)
        modules.setdefault(f"{module}.weight", {})[_SIDES[suffix]] = key
    expected = {"A", "B", "lengths"} if dora else {"A", "B"}
    for name, sides in modules.items():
        if set(sides) != expected:
            lacking = ", ".join(sorted(expected ^ set(sides)))
            raise TargetRefusedError(f"the adapter's tensors for {name!r} are not those of its kind ({lacking})")
    return modules
