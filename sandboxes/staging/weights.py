"""Safetensors files, checked and copied without loading them and without a word of their metadata."""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

from marple.errors import TargetRefusedError

__all__ = [
    "NewTensor",
    "Tensor",
    "Weights",
    "copy_weights",
    "from_file",
    "in_file_order",
    "open_regular",
    "read_tensor",
    "read_weights",
    "write_weights",
]

_MAX_HEADER_BYTES = 32 * 1024 * 1024
_MAX_TENSORS = 200_000
_MAX_DIMENSIONS = 16
_CHUNK = 4 * 1024 * 1024
_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F6_E2M3": 6, "F6_E3M2": 6, "F4": 4,
    "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


@dataclass(frozen=True)
class Tensor:
    """Where a tensor lies in its file."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    """Byte offset from the start of the file."""
    size: int
    """In bytes."""


@dataclass(frozen=True)
class Weights:
    """A safetensors file whose header was checked; tensors in the order they lie in the file."""

    path: Path
    tensors: Mapping[str, Tensor]


@dataclass(frozen=True)
class NewTensor:
    """A tensor that is to be written."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    """In bytes."""
    content: Callable[[], Iterable[bytes]] = field(repr=False)
    """Its bytes, in pieces; called when it is its turn."""


def open_regular(path: Path) -> BinaryIO:
    """Open a file for reading if it is a regular file and not a link to one.

    Raises:
        TargetRefusedError: it is a link, a device, a pipe or a directory.
        OSError: it cannot be opened.
    """
    if path.is_symlink():
        raise TargetRefusedError(f"{path.name} is a symbolic link; copy the file itself into the directory")
    # O_NONBLOCK so that a named pipe does not hold the host.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise TargetRefusedError(f"{path.name} is not a regular file")
    return os.fdopen(handle, "rb")


def read_weights(path: Path) -> Weights:
    """Check the header of a safetensors file: sizes, types, offsets without gap or overlap.

    Raises:
        TargetRefusedError: the file is not what the format says; the message gives the first fault.
        OSError: it cannot be read.
    """
    with open_regular(path) as file:
        total = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if total < 8 or not 2 <= length <= min(_MAX_HEADER_BYTES, total - 8):
            raise TargetRefusedError(f"{path.name} is not a safetensors file: its header length is {length}")
        entries = _entries(path, file.read(length))
    start = 8 + length
    tensors = {name: _tensor(path, name, entry, start) for name, entry in entries.items()}
    ordered = dict(sorted(tensors.items(), key=lambda item: (item[1].begin, item[1].size)))
    position = start
    for name, tensor in ordered.items():
        if tensor.begin != position:
            raise TargetRefusedError(f"{path.name}: tensor {name!r} overlaps another or leaves a gap")
        position += tensor.size
    if position != total:
        raise TargetRefusedError(f"{path.name} has {total - start} bytes of data; its header says {position - start}")
    return Weights(path, ordered)


def _entries(path: Path, header: bytes) -> dict[str, Any]:
    try:
        entries = json.loads(header.decode("utf-8"), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise TargetRefusedError(f"{path.name}: its header is not JSON: {str(error)[:200]}") from error
    if not isinstance(entries, dict) or len(entries) > _MAX_TENSORS:
        raise TargetRefusedError(f"{path.name}: its header is not an object of at most {_MAX_TENSORS} tensors")
    entries.pop("__metadata__", None)
    return entries


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a name occurs twice")
    return value


def _tensor(path: Path, name: str, entry: Any, start: int) -> Tensor:
    fault = TargetRefusedError(f"{path.name}: the header entry of tensor {name[:100]!r} is malformed")
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise fault
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or not _naturals(shape) or not _naturals(offsets):
        raise fault
    if dtype not in _BITS or len(shape) > _MAX_DIMENSIONS or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise fault
    size = offsets[1] - offsets[0]
    if math.prod(shape) * _BITS[dtype] != size * 8:
        raise TargetRefusedError(f"{path.name}: tensor {name[:100]!r} has {size} bytes, not those of its shape")
    return Tensor(dtype, tuple(shape), start + offsets[0], size)


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(one) is int and one >= 0 for one in value)


def read_tensor(weights: Weights, name: str) -> bytes:
    """The raw little-endian bytes of one tensor."""
    tensor = weights.tensors[name]
    with open_regular(weights.path) as file:
        file.seek(tensor.begin)
        return file.read(tensor.size)


def from_file(weights: Weights, name: str) -> NewTensor:
    """A tensor that is to be written as it lies in a file; read in pieces."""
    tensor = weights.tensors[name]
    return NewTensor(name, tensor.dtype, tensor.shape, tensor.size, lambda: _pieces(weights.path, tensor))


def write_weights(tensors: Iterable[NewTensor], destination: Path) -> None:
    """Write a new file, in an order that depends on types and names alone.

    Args:
        tensors: written one after the other.
        destination: must not exist.

    Raises:
        TargetRefusedError: a tensor's content is shorter or longer than it was said to be.
    """
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    ordered = sorted(tensors, key=in_file_order)
    for tensor in ordered:
        offsets = [position, position + tensor.size]
        header[tensor.name] = {"dtype": tensor.dtype, "shape": list(tensor.shape), "data_offsets": offsets}
        position += tensor.size
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % 8)
    with destination.open("xb") as target:
        target.write(len(text).to_bytes(8, "little") + text)
        for tensor in ordered:
            written = sum(target.write(piece) for piece in tensor.content())
            if written != tensor.size:
                raise TargetRefusedError(f"tensor {tensor.name[:100]!r} changed its size while it was copied")


def in_file_order(tensor: NewTensor) -> tuple[int, str]:
    """The wide types first, so that every tensor lies where its type wants it; then by name."""
    return -_BITS[tensor.dtype], tensor.name


def copy_weights(weights: Weights, destination: Path) -> None:
    """Write the tensors of a file to a new one with a header of our own."""
    write_weights([from_file(weights, name) for name in weights.tensors], destination)


def _pieces(path: Path, tensor: Tensor) -> Iterator[bytes]:
    with open_regular(path) as source:
        source.seek(tensor.begin)
        size = tensor.size
        while size:
            data = source.read(min(size, _CHUNK))
            if not data:
                raise TargetRefusedError("a weights file became shorter while it was copied")
            yield data
            size -= len(data)
