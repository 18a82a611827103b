"""What the code of an agent saves: bytes of five kinds, looked at from outside and never opened by a library."""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass

from marple.tools.code.caps import SAVED_EACH_BYTES

__all__ = ["DTYPES", "MEDIA_TYPES", "NAME", "Saved", "Unacceptable", "look_at", "npy_header"]

MEDIA_TYPES = {
    "image/png": ".png",
    "application/x-npy": ".npy",
    "text/csv": ".csv",
    "application/json": ".json",
    "text/plain": ".txt",
}
"""Kinds that are accepted, each with the ending its names have."""

NAME = re.compile(r"\A[A-Za-z0-9][A-Za-z0-9._ -]{0,94}\Z")
"""Names, the ending included."""

DTYPES = {
    **{f"{sign}{size}": f"{word}{8 * size}" for sign, word in (("i", "int"), ("u", "uint")) for size in (1, 2, 4, 8)},
    **{f"f{size}": f"float{8 * size}" for size in (2, 4, 8)},
    **{f"c{size}": f"complex{8 * size}" for size in (8, 16)},
    "b1": "bool",
}
"""Types of numbers in an array: as ``.npy`` writes them without the byte order, and as numpy calls them."""

_NPY = re.compile(
    rb"\{'descr': '[<|]([a-z]\d{1,2})', 'fortran_order': False, "
    rb"'shape': \(((?:\d{1,12}, ?){0,32}(?:\d{1,12})?)\), \} *\n"
)
_MAGIC = b"\x93NUMPY\x01\x00"
_PNG = b"\x89PNG\r\n\x1a\n"
_WIDEST = 8192


class Unacceptable(ValueError):
    """Something saved is not what it must be; the message says what is wrong."""


@dataclass(frozen=True)
class Saved:
    """One saved thing."""

    name: str
    media_type: str
    data: bytes
    about: str
    """What it is, such as ``float32 (3, 64)``, found out from the bytes themselves."""


def look_at(name: str, media_type: str, data: bytes) -> Saved:
    """Check a saved thing by its bytes, without opening it.

    Raises:
        Unacceptable: its name, its kind or its size is not allowed, or the bytes are not of that kind.
    """
    ending = MEDIA_TYPES.get(media_type)
    if ending is None:
        raise Unacceptable(f"the kind {media_type[:60]!r} is none of {', '.join(MEDIA_TYPES)}")
    if not NAME.match(name) or not name.endswith(ending):
        raise Unacceptable(
            f"the name {name[:100]!r} is not allowed: up to 90 letters, digits, dots, spaces, underscores and hyphens, "
            f"a letter or digit first, {ending} last"
        )
    if len(data) > SAVED_EACH_BYTES:
        raise Unacceptable(f"{name} has {len(data):,} bytes; the limit is {SAVED_EACH_BYTES:,} for one thing")
    return Saved(name, media_type, data, _about(media_type, data))


def npy_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """What precedes the numbers, little-endian and in C order, of an array in a ``.npy`` file of version 1.0."""
    shown = f"({shape[0]},)" if len(shape) == 1 else f"({', '.join(map(str, shape))})"
    order = "|" if descr.endswith("1") and descr[1:] == "1" else "<"
    text = f"{{'descr': '{order}{descr}', 'fortran_order': False, 'shape': {shown}, }}"
    length = -(-(len(_MAGIC) + 2 + len(text) + 1) // 64) * 64 - len(_MAGIC) - 2
    return _MAGIC + struct.pack("<H", length) + text.ljust(length - 1).encode("ascii") + b"\n"


def _about(media_type: str, data: bytes) -> str:
    if media_type == "image/png":
        return _about_png(data)
    if media_type == "application/x-npy":
        return _about_npy(data)
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Unacceptable("text must be UTF-8") from error
    lines = len(text.splitlines())
    return f"{lines} line{'s' * (lines != 1)}"


def _about_png(data: bytes) -> str:
    if not data.startswith(_PNG) or data[12:16] != b"IHDR" or len(data) < 33:
        raise Unacceptable("the bytes are no PNG")
    width, height = struct.unpack(">II", data[16:24])
    # Whoever shows it allocates by these two numbers, however few bytes follow.
    if not (0 < width <= _WIDEST and 0 < height <= _WIDEST):
        raise Unacceptable(f"an image of {width} x {height} is too large; at most {_WIDEST} x {_WIDEST}")
    return f"{width} x {height}"


def _about_npy(data: bytes) -> str:
    length = int.from_bytes(data[8:10], "little")
    header, numbers = data[10 : 10 + length], data[10 + length :]
    match = _NPY.fullmatch(header)
    if not data.startswith(_MAGIC) or match is None or match[1].decode() not in DTYPES:
        raise Unacceptable("the bytes are no array of numbers as save writes them")
    shape = tuple(int(part) for part in match[2].replace(b",", b" ").split())
    if math.prod(shape) * int(match[1][1:]) != len(numbers):
        raise Unacceptable("an array has another number of bytes than its shape says")
    return f"{DTYPES[match[1].decode()]} {shape}"
