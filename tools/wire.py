"""What host and worker say to each other: length-prefixed strict JSON, nothing else.

A frame is a 4-byte big-endian length and that many bytes of UTF-8 JSON holding one object. The side that reads
trusts nothing: the size is checked before anything is allocated, the number of values and the depth of their nesting
before anything is made of them (a megabyte of ``[],[],`` is forty of objects), and long numbers, NaN, duplicate keys,
invalid UTF-8 and lone surrogates are refused. ``marple.tools.messages`` says what the objects hold.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from typing import Any, BinaryIO, NoReturn

from marple.errors import WireError

__all__ = [
    "MAX_CONTAINERS",
    "MAX_DEPTH",
    "MAX_FRAME_BYTES",
    "MAX_NUMBER_CHARACTERS",
    "MAX_VALUES",
    "FrameParser",
    "TooManyValuesError",
    "decode_body",
    "encode_body",
    "encode_frame",
    "frame",
    "read_frame",
    "why_not_json",
]

MAX_FRAME_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64
MAX_VALUES = 500_000
"""Most values in a frame, those inside others counted too."""
MAX_CONTAINERS = 100_000
"""Most objects and arrays in a frame."""
MAX_NUMBER_CHARACTERS = 40
_HEADER = 4
# Strings are matched whole so that what is inside them does not count; possessive, so linear whatever the input.
_TOKENS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[{]|[\]}]|,', re.DOTALL)
_QUOTE, _COMMA = ord('"'), ord(",")


class TooManyValuesError(WireError):
    """An object is valid JSON but of more values than a frame may hold."""


# ---------------------------------------------------------------------------------------------- strict JSON


def encode_body(value: Mapping[str, Any]) -> bytes:
    """One JSON object as UTF-8 bytes, of any length.

    Raises:
        WireError: the value is not JSON (a NaN, a lone surrogate, an object of another type).
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise WireError(f"cannot be sent as JSON: {why_not_json(value, error)}") from error


def why_not_json(value: object, error: Exception) -> str:
    """What ``json`` found wrong with a value, with the place of a number that is none."""
    where = _not_finite(value)
    return f"{where}, and JSON has finite numbers alone, for example 1.0" if where else str(error)


def _not_finite(value: object, name: str = "", depth: int = 0) -> str:
    """Which number in a value is NaN or infinite, as ``scales[0] is nan``; '' if none is."""
    if isinstance(value, float):
        return "" if math.isfinite(value) else f"{name} is {value}"
    if depth > MAX_DEPTH or not isinstance(value, (Mapping, list, tuple)):
        return ""
    inside = (
        ((f"{name}.{key}"[:200].lstrip("."), one) for key, one in value.items())
        if isinstance(value, Mapping)
        else ((f"{name}[{at}]", one) for at, one in enumerate(value))
    )
    return next((found for where, one in inside if (found := _not_finite(one, where, depth + 1))), "")


def decode_body(body: bytes) -> dict[str, Any]:
    """The object in one frame's body.

    Raises:
        WireError: anything but one strict JSON object.
    """
    _check_shape(body)
    try:
        text = body.decode("utf-8")
        value = _DECODER.decode(text)
    except UnicodeDecodeError as error:
        raise WireError("a frame is not UTF-8") from error
    except RecursionError as error:
        raise WireError(f"a frame is nested deeper than {MAX_DEPTH}") from error
    except ValueError as error:
        raise WireError(f"a frame is not JSON: {str(error)[:200]}") from error
    if not isinstance(value, dict):
        raise WireError("a frame is not a JSON object")
    _check_surrogates(value, body)
    return value


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise WireError("a frame has a duplicate key")
    return value


def _integer(text: str) -> int:
    if len(text) > MAX_NUMBER_CHARACTERS:
        raise WireError(f"a frame has a number longer than {MAX_NUMBER_CHARACTERS} characters")
    return int(text)


def _float(text: str) -> float:
    if len(text) > MAX_NUMBER_CHARACTERS or not math.isfinite(value := float(text)):
        raise WireError("a frame has a number that is too long or not finite")
    return value


def _constant(name: str) -> NoReturn:
    raise WireError(f"a frame has the constant {name}")


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_int=_integer, parse_float=_float, parse_constant=_constant)


def _check_shape(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH and body.count(b",") <= MAX_VALUES - MAX_DEPTH:
        return
    # Before the first fault of a broken body, this reads it as a decoder does.
    strings = commas = containers = depth = 0
    for match in _TOKENS.finditer(body):
        first = body[match.start()]
        if first == _QUOTE:
            strings += 1
        elif first == _COMMA:
            commas += 1
        elif first in b"[{":
            containers += 1
            depth += 1
        else:
            depth -= 1
        if depth > MAX_DEPTH:
            raise WireError(f"a frame is nested deeper than {MAX_DEPTH}")
        if containers > MAX_CONTAINERS or commas + containers > MAX_VALUES or strings > 2 * MAX_VALUES:
            raise TooManyValuesError(
                f"a frame holds more than {MAX_VALUES} values or more than {MAX_CONTAINERS} objects and arrays"
            )


def _check_surrogates(value: dict[str, Any], body: bytes) -> None:
    if b"\\ud" not in body and b"\\uD" not in body:
        return
    try:
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise WireError("a frame has a lone surrogate") from error


# ---------------------------------------------------------------------------------------------- frames


def frame(body: bytes) -> bytes:
    """A body with its length before it, checked as the reader will check it.

    Raises:
        WireError: the body is over ``MAX_FRAME_BYTES`` or is not what ``decode_body`` accepts.
    """
    if len(body) > MAX_FRAME_BYTES:
        raise WireError(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME_BYTES}")
    decode_body(body)
    return len(body).to_bytes(_HEADER, "big") + body


def encode_frame(value: Mapping[str, Any]) -> bytes:
    """One object as a whole frame.

    Raises:
        WireError: the value is not strict JSON or is too large.
    """
    return frame(encode_body(value))


class FrameParser:
    """Frames out of a stream of bytes that arrive in any pieces; holds at most one unfinished frame."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._broken: str | None = None

    @property
    def pending(self) -> int:
        """Bytes of an unfinished frame; above 0 at the end of the stream means a torn frame."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[dict[str, Any]]:
        """The frames that these bytes complete.

        Raises:
            WireError: a frame is oversized or malformed; every later call raises too.
        """
        if self._broken is not None:
            raise WireError(self._broken)
        self._buffer += data
        try:
            return self._take()
        except WireError as error:
            self._broken = str(error)
            self._buffer.clear()
            raise

    def _take(self) -> list[dict[str, Any]]:
        frames = []
        start = 0
        while len(self._buffer) - start >= _HEADER:
            length = _frame_length(bytes(self._buffer[start : start + _HEADER]))
            end = start + _HEADER + length
            if len(self._buffer) < end:
                break
            frames.append(decode_body(bytes(self._buffer[start + _HEADER : end])))
            start = end
        del self._buffer[:start]
        return frames


def read_frame(stream: BinaryIO) -> dict[str, Any] | None:
    """The next frame of a blocking stream, or None where it ends between two frames.

    Raises:
        WireError: a frame is torn, oversized or malformed.
    """
    header = stream.read(_HEADER)
    if not header:
        return None
    if len(header) < _HEADER:
        raise WireError("the stream ended inside a frame")
    length = _frame_length(header)
    body = stream.read(length)
    if len(body) < length:
        raise WireError("the stream ended inside a frame")
    return decode_body(body)


def _frame_length(header: bytes) -> int:
    length = int.from_bytes(header, "big")
    if not 2 <= length <= MAX_FRAME_BYTES:
        raise WireError(f"a frame announces {length} bytes; the limit is {MAX_FRAME_BYTES}")
    return length
