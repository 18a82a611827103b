"""Control vectors as GGUF files, the format of repeng and of llama.cpp's ``--control-vector``.

Tensor ``direction.{layer}`` is added to the output of that layer, counted from 0, so the site is ``resid_post``.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from marple.errors import ToolError, UsageError
from marple.tools.engine.sites import Site
from marple.tools.vectors.files import check_set
from marple.tools.vectors.vector import Vector

__all__ = ["export_gguf", "import_gguf"]

_ARCHITECTURE = "controlvector"
_OWN_KEY = "marple.vectors"


def export_gguf(path: Path, vectors: Sequence[Vector], *, model_hint: str) -> Path:
    """Write residual-stream vectors as a control vector, with method and source of each under a key of our own.

    Args:
        path: the file.
        vectors: one per layer, all of ``resid_post``.
        model_hint: ``model_type`` of the model they belong to, such as ``llama``.

    Raises:
        UsageError: there are none, two are for the same layer, or one is for another site.
    """
    gguf = _gguf()
    check_set(vectors)
    for vector in vectors:
        if vector.site.name != "resid_post":
            raise UsageError(f"a vector for {vector.site} cannot be a control vector: those are added to resid_post")
    writer = gguf.GGUFWriter(str(path), _ARCHITECTURE)
    writer.add_string(f"{_ARCHITECTURE}.model_hint", model_hint)
    writer.add_uint32(f"{_ARCHITECTURE}.layer_count", len(vectors))
    described = {str(vector.site.layer): vector.metadata() for vector in vectors}
    writer.add_string(_OWN_KEY, json.dumps(described, sort_keys=True))
    for vector in sorted(vectors, key=lambda one: one.site):
        writer.add_tensor(f"direction.{vector.site.layer}", vector.direction.numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def import_gguf(path: Path, *, width: int | None = None) -> list[Vector]:
    """Read a control vector, one vector per layer, in order of layer.

    Args:
        path: the file.
        width: required ``d_model``; None takes any.

    Raises:
        UsageError: the file is missing, no GGUF file, no control vector, or holds anything but finite float vectors.
    """
    if not path.is_file():
        raise UsageError(f"vector file {str(path)!r} does not exist")
    gguf = _gguf()
    try:
        reader = gguf.GGUFReader(str(path))
        architecture = _text(reader, "general.architecture")
        hint = _text(reader, f"{_ARCHITECTURE}.model_hint")
        own = _text(reader, _OWN_KEY)
        described = dict(json.loads(own)) if own else {}
        tensors = list(reader.tensors)
    # A damaged file can break the reader anywhere: lengths and offsets in it are taken at their word.
    except Exception as error:
        raise UsageError(f"vector file {str(path)!r} is no readable GGUF file: {str(error)[:200]}") from error
    if architecture != _ARCHITECTURE:
        raise UsageError(f"GGUF file {str(path)!r} holds a {architecture or 'nameless'!r} model, not a control vector")
    found = [_vector(path, tensor, hint, described) for tensor in tensors if tensor.name.startswith("direction.")]
    check_set(found, where=f" in {str(path)!r}", width=width)
    return sorted(found, key=lambda vector: vector.site)


def _vector(path: Path, tensor: Any, hint: str, described: dict[str, Any]) -> Vector:
    where = f"GGUF file {str(path)!r}, tensor {tensor.name[:80]!r}"
    layer = tensor.name.removeprefix("direction.")
    if not layer.isdecimal():
        raise UsageError(f"{where}: a control vector's tensors are called direction.0, direction.1 and so on")
    if tensor.data.dtype not in (np.float16, np.float32, np.float64):
        raise UsageError(f"{where}: type {tensor.tensor_type.name} is not a floating-point type")
    told = described.get(layer) or {}
    source = told.get("source") or {"file": path.name, "model_hint": hint}
    try:
        direction = torch.from_numpy(np.array(tensor.data, dtype=np.float32))
        return Vector(Site(int(layer), "resid_post"), direction, str(told.get("method", "unknown")), dict(source))
    except (ToolError, TypeError, ValueError) as error:
        raise UsageError(f"{where}: {error}") from error


def _text(reader: Any, key: str) -> str:
    field = reader.get_field(key)
    return bytes(field.parts[-1]).decode("utf-8", "replace") if field is not None and len(field.parts) else ""


def _gguf() -> Any:
    try:
        import gguf
    except ImportError as error:
        raise UsageError("GGUF files need the gguf package: pip install gguf") from error
    return gguf
