"""Bytes of tensors as float32 numbers and back, without torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from marple.errors import TargetRefusedError
from marple.sandboxes.staging.weights import Tensor

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Matrix: TypeAlias = npt.NDArray[np.float32]

__all__ = ["from_float32", "to_float32"]

_TYPES = ("BF16", "F16", "F32")


def to_float32(data: bytes, tensor: Tensor, name: str) -> Matrix:
    """The numbers of a tensor, in its shape.

    Raises:
        TargetRefusedError: it is of a type whose numbers float32 does not hold.
    """
    import numpy as np

    _require(tensor.dtype, name)
    if tensor.dtype == "BF16":
        values = (np.frombuffer(data, "<u2").astype("<u4") << np.uint32(16)).view("<f4")
    else:
        values = np.frombuffer(data, "<f2" if tensor.dtype == "F16" else "<f4").astype("<f4")
    return values.reshape(tensor.shape)


def from_float32(values: Matrix, dtype: str, name: str) -> bytes:
    """Numbers as the bytes of a type, rounded to nearest, ties to even, as torch does.

    Raises:
        TargetRefusedError: one of them is not finite in it.
    """
    import numpy as np

    _require(dtype, name)
    if dtype == "BF16":
        if not np.isfinite(values).all():
            raise TargetRefusedError(f"{name!r} becomes infinite or NaN in {dtype}")
        bits = np.ascontiguousarray(values, "<f4").view("<u4")
        rounded = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) >> np.uint32(16)
        return rounded.astype("<u2").tobytes()
    with np.errstate(over="ignore"):
        narrow = values.astype("<f2" if dtype == "F16" else "<f4")
    if not np.isfinite(narrow).all():
        raise TargetRefusedError(f"{name!r} becomes infinite or NaN in {dtype}")
    return narrow.tobytes()


def _require(dtype: str, name: str) -> None:
    if dtype not in _TYPES:
        raise TargetRefusedError(f"{name!r} is stored as {dtype}; adapters merge in {', '.join(_TYPES)}")
