"""Vectors and probes as safetensors files with JSON metadata.

One tensor ``(d_model,)`` per site under TransformerLens' name for it (``blocks.4.hook_resid_post``). The header's
``marple`` entry holds, as JSON, the format's version, the kind of each tensor, method and source. Plain files of
other tools that map a layer's number or any name of a site to a vector are read as residual-stream vectors.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from marple.errors import ToolError, UsageError
from marple.tools.engine.sites import Site, parse_site
from marple.tools.vectors.vector import Vector

__all__ = ["load_vectors", "save_vectors", "vectors_to_bytes"]

_FORMAT = "marple-vectors-1"
_LARGEST = 1 << 30


def save_vectors(path: Path, vectors: Sequence[Vector]) -> Path:
    """Write vectors to a file; returns its path.

    Raises:
        UsageError: there are none, two are for the same site, or their widths differ.
    """
    path.write_bytes(vectors_to_bytes(vectors))
    return path


def vectors_to_bytes(vectors: Sequence[Vector]) -> bytes:
    """The content of such a file; raises what ``save_vectors`` raises."""
    from safetensors.torch import save

    check_set(vectors)
    described = {str(vector.site): vector.metadata() for vector in vectors}
    header = {"format": _FORMAT, "vectors": described}
    tensors = {str(vector.site): vector.direction.contiguous() for vector in vectors}
    return bytes(save(tensors, metadata={"marple": json.dumps(header, sort_keys=True)}))


def load_vectors(path: Path, *, width: int | None = None) -> list[Vector]:
    """Read vectors from a safetensors file, in order of layer.

    Args:
        path: the file.
        width: required ``d_model``; None takes any.

    Raises:
        UsageError: the file is missing, no safetensors file, of an unknown format version, or holds anything but finite
            vectors of one width.
    """
    tensors, header = _read(path)
    described = _described(path, header)
    found = [_vector(path, name, tensor, described.get(name)) for name, tensor in tensors.items()]
    check_set(found, where=f" in {str(path)!r}", width=width)
    return sorted(found, key=lambda vector: vector.site)


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    if not path.is_file():
        raise UsageError(f"vector file {str(path)!r} does not exist")
    if path.stat().st_size > _LARGEST:
        raise UsageError(f"vector file {str(path)!r} is larger than 1 GiB, which no set of vectors is")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise UsageError(f"vector file {str(path)!r} is no safetensors file: {reason}") from error


def _described(path: Path, header: dict[str, str]) -> dict[str, dict[str, Any]]:
    if "marple" not in header:
        return {}
    try:
        told = json.loads(header["marple"])
        version, described = told["format"], dict(told["vectors"])
    except (ValueError, TypeError, KeyError) as error:
        raise UsageError(f"vector file {str(path)!r} has a damaged header: {error!r}") from error
    if version != _FORMAT:
        raise UsageError(f"vector file {str(path)!r} has format {version!r}; this version reads {_FORMAT!r}")
    return described


def _vector(path: Path, name: str, tensor: Tensor, described: dict[str, Any] | None) -> Vector:
    try:
        site = Site(int(name), "resid_post") if name.isdecimal() else parse_site(name)
        if not tensor.dtype.is_floating_point:
            raise ToolError(f"it has type {str(tensor.dtype).removeprefix('torch.')}, not a floating-point one")
        told = described or {}
        return Vector(site, tensor, str(told.get("method", "unknown")), dict(told.get("source") or {"file": path.name}))
    except (ToolError, TypeError, ValueError) as error:
        raise UsageError(f"vector file {str(path)!r}, tensor {name[:80]!r}: {error}") from error


def check_set(vectors: Sequence[Vector], *, where: str = "", width: int | None = None) -> None:
    """Raise a UsageError unless these are vectors of one width for different sites."""
    if not vectors:
        raise UsageError(f"there is no vector{where}")
    sites = [str(vector.site) for vector in vectors]
    if len(set(sites)) < len(sites):
        raise UsageError(f"two vectors{where} are for the same site; a file holds one per site: {', '.join(sites)}")
    widths = sorted({vector.direction.numel() for vector in vectors})
    if len(widths) > 1 or (width is not None and widths != [width]):
        wanted = "one width" if width is None else f"width {width}"
        raise UsageError(f"the vectors{where} have width {' and '.join(map(str, widths))}; {wanted} is needed")
