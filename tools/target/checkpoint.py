"""Look at a model directory, without loading anything, and refuse what could not be loaded safely."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from marple.errors import TargetRefusedError

__all__ = ["Checkpoint", "check_target_dir", "find_target"]

_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".msgpack", ".h5")
_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model")
_MAX_JSON_BYTES = 256 * 1024 * 1024
_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}$")
_HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja")


@dataclass(frozen=True)
class Checkpoint:
    """A model directory that passed the checks."""

    path: Path
    kind: Literal["model", "adapter"]
    weights: tuple[str, ...]
    """File names of the safetensors weights."""
    base: str | None
    """For an adapter, the base model its configuration names: a path or a hub id."""
    ignored: tuple[str, ...]
    """Weights in formats that are never read (pickles), lying beside the safetensors."""


def check_target_dir(path: Path | str, *, chat_template: bool = True) -> Checkpoint:
    """Check that a directory holds a causal language model or a PEFT adapter that can be loaded safely.

    Only names and JSON files are read, so that a host can call it before any worker starts.

    Args:
        path: the directory.
        chat_template: whether a missing chat template is a reason to refuse.

    Raises:
        TargetRefusedError: the directory, its configuration, safetensors weights, tokenizer or chat template
            is missing or unreadable; the weights are pickles; or the model comes with its own code.
    """
    root = Path(path)
    if not root.is_dir():
        kind = "is a file, not a directory" if root.exists() else "does not exist"
        raise _refusal(root, f"{kind}; give a Hugging Face model directory or a hub id")
    names = sorted(entry.name for entry in root.iterdir())
    adapter = "adapter_config.json" in names
    config = _read_json(root, "adapter_config.json" if adapter else "config.json", names=names)
    _refuse_code(root, names)
    weights = _weights(root, names, adapter=adapter)
    if not adapter:
        if not config.get("model_type"):
            raise _refusal(root, "has a config.json that names no model_type")
        _require_tokenizer(root, names, chat_template=chat_template)
    return Checkpoint(
        path=root,
        kind="adapter" if adapter else "model",
        weights=weights,
        base=config.get("base_model_name_or_path") if adapter else None,
        ignored=tuple(name for name in names if name.endswith(_PICKLES)),
    )


def find_target(name: Path | str, *, revision: str | None = None, folder: str = "") -> Path:
    """The directory of a target: the path itself, or the local snapshot of a hub id.

    The local cache is used if it holds the model; otherwise only JSON, safetensors and tokenizer files are
    downloaded.

    Args:
        name: a directory or a hub id.
        revision: commit, branch or tag of the hub id.
        folder: the folder in it that holds the model; nothing else is downloaded then.

    Raises:
        TargetRefusedError: neither a directory nor a hub id, or a hub id that is not cached and cannot be
            fetched.
    """
    if Path(name).exists():
        return Path(name) / folder
    if not _HUB_ID.match(str(name)):
        raise _refusal(name, "does not exist, and is not a hub id either (those look like 'owner/name')")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted: dict[str, Any] = {"allow_patterns": [f"{folder}/{it}" if folder else it for it in _HUB_FILES]}
    if revision is not None:
        wanted["revision"] = revision
    try:
        cached = Path(snapshot_download(str(name), **wanted, local_files_only=True)) / folder
        if cached.is_dir():
            return cached
    except LocalEntryNotFoundError:
        pass
    try:
        return Path(snapshot_download(str(name), **wanted)) / folder
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise _refusal(
            name,
            "is no directory here, is not in the local hub cache, and could not be fetched from the hub "
            f"({type(error).__name__}); download it or give a directory",
        ) from error


def _refusal(root: Path | str, reason: str) -> TargetRefusedError:
    return TargetRefusedError(f"target {str(root)!r} {reason}")


def _listing(names: list[str]) -> str:
    shown = ", ".join(names[:12]) or "nothing"
    return f"found: {shown}" + (", ..." if len(names) > 12 else "")


def _read_json(root: Path, name: str, *, names: list[str]) -> dict[str, Any]:
    if name not in names:
        raise _refusal(root, f"has no {name} ({_listing(names)})")
    if not (root / name).is_file():
        # A pipe would hold whoever opens it.
        raise _refusal(root, f"has a {name} that is not a regular file")
    try:
        with (root / name).open("rb") as file:
            data = file.read(_MAX_JSON_BYTES + 1)
        if len(data) > _MAX_JSON_BYTES:
            raise ValueError(f"larger than {_MAX_JSON_BYTES} bytes")
        value = json.loads(data.decode("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _refusal(root, f"has a {name} that cannot be read: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise _refusal(root, f"has a {name} that is not a JSON object")
    return value


def _refuse_code(root: Path, names: list[str]) -> None:
    code = [name for name in names if name.endswith((".py", ".pyc", ".so"))]
    if code:
        raise _refusal(
            root,
            f"comes with its own code ({_listing(code)}); Marple never runs code from a model directory: "
            "remove the files if the architecture is one that transformers knows",
        )
    for name in names:
        if name.endswith("config.json") and "auto_map" in _read_json(root, name, names=names):
            raise _refusal(
                root,
                f"needs custom code (auto_map in {name}); Marple never runs code from a model directory: use "
                "a checkpoint of an architecture that transformers knows",
            )


def _weights(root: Path, names: list[str], *, adapter: bool) -> tuple[str, ...]:
    stem = "adapter_model" if adapter else "model"
    index = f"{stem}.safetensors.index.json"
    if f"{stem}.safetensors" in names:
        return (f"{stem}.safetensors",)
    if index in names:
        return _shards(root, index, names)
    pickles = [name for name in names if name.endswith(_PICKLES)]
    if pickles:
        raise _refusal(
            root,
            f"has pickled weights only ({_listing(pickles)}); loading a pickle runs code, so Marple reads "
            "safetensors alone: convert it with save_pretrained",
        )
    raise _refusal(root, f"has no {stem}.safetensors and no {index} ({_listing(names)})")


def _shards(root: Path, index: str, names: list[str]) -> tuple[str, ...]:
    weight_map = _read_json(root, index, names=names).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map or not all(isinstance(v, str) for v in weight_map.values()):
        raise _refusal(root, f"has a {index} without a weight_map from tensors to files; save it with save_pretrained")
    shards = sorted(set(weight_map.values()))
    # Names in this directory and no paths: what is elsewhere is not the model's.
    if missing := [shard for shard in shards if shard not in names]:
        raise _refusal(root, f"lacks shards that {index} names: {', '.join(repr(one[:100]) for one in missing[:5])}")
    if odd := [shard for shard in shards if not shard.endswith(".safetensors")]:
        raise _refusal(root, f"has a {index} that names {odd[0][:100]!r}, which is no safetensors file")
    return tuple(shards)


def _require_tokenizer(root: Path, names: list[str], *, chat_template: bool) -> None:
    if not any(name in names for name in _TOKENIZERS):
        looked_for = ", ".join(_TOKENIZERS)
        raise _refusal(root, f"has no tokenizer (looked for {looked_for}): save it with tokenizer.save_pretrained")
    if not chat_template or "chat_template.jinja" in names or "chat_template.json" in names:
        return
    settings = {}
    if "tokenizer_config.json" in names:
        settings = _read_json(root, "tokenizer_config.json", names=names)
    if not settings.get("chat_template"):
        raise _refusal(
            root,
            "has no chat template, so no conversation can be rendered for it: put a chat_template.jinja into "
            "the directory",
        )
