"""Read an SAE's files: safetensors, JSON, npz; never a pickle."""

from __future__ import annotations

import json
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from marple.errors import UsageError

__all__ = ["layer_in", "read_json", "read_npz", "read_safetensors", "read_state", "required"]


def read_json(path: Path) -> dict[str, Any]:
    """One JSON object.

    Raises:
        UsageError: it cannot be read or is something else.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as JSON: {error}") from error
    if not isinstance(value, dict):
        raise UsageError(f"{str(path)!r} holds a {type(value).__name__}, not a JSON object")
    return value


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """All tensors of a safetensors file.

    Raises:
        UsageError: it is no such file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError) as error:
        raise UsageError(f"{str(path)!r} cannot be read as safetensors: {error}") from error
    return tensors


def read_npz(path: Path) -> dict[str, Tensor]:
    """All arrays of an npz file, those that are numbers and not pickled objects.

    Raises:
        UsageError: it is no npz file, or an array in it is pickled.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(np.asarray(arrays[name], dtype=np.float32)) for name in arrays.files}
    except (OSError, ValueError, zipfile.BadZipFile, AttributeError) as error:
        raise UsageError(
            f"{str(path)!r} is not an npz file of plain numbers ({str(error).partition(chr(10))[0][:200]}); pickled "
            "objects are not loaded, because loading one runs its code"
        ) from error


def read_state(path: Path) -> dict[str, Tensor]:
    """The state dictionary in a file of torch's, if it holds tensors only.

    Raises:
        UsageError: it holds anything else, or cannot be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise UsageError(
            f"{str(path)!r} is not a plain state dictionary ({type(error).__name__}); pickled objects are not loaded, "
            "because loading one runs its code: save the module's state_dict() instead"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise UsageError(f"{str(path)!r} holds no state dictionary of tensors")
    return state


def required(tensors: Mapping[str, Tensor], name: str, path: Path) -> Tensor:
    """One tensor by name.

    Raises:
        UsageError: it is not there.
    """
    if name not in tensors:
        raise UsageError(f"{str(path)!r} has no tensor {name!r}; it has {', '.join(sorted(tensors)) or 'none'}")
    return tensors[name]


def layer_in(text: str) -> int | None:
    """The number behind ``layer_`` in a path, or None."""
    found = re.findall(r"layer_(\d+)", text)
    return int(found[-1]) if found else None
