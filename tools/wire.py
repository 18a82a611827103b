"""What host and worker say to each other: length-prefixed strict JSON, nothing else.

A frame is a 4-byte big-endian length and that many bytes of UTF-8 JSON holding one object. The host asks and the
worker answers, in any order; a request's random id ties the two together. The side that reads trusts nothing: the
size is checked before anything is allocated, and nesting depth, number length, NaN, duplicate keys, invalid UTF-8
and lone surrogates are refused. Nothing here imports torch.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, BinaryIO, Literal, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError

from marple.errors import WireError
from marple.tools.contract import Artifact, Cost, ToolResult

__all__ = [
    "MAX_DEPTH",
    "MAX_FRAME_BYTES",
    "MAX_NUMBER_CHARACTERS",
    "PROTOCOL",
    "Call",
    "ErrorBody",
    "ErrorCode",
    "FrameParser",
    "Hello",
    "HelloReply",
    "Reply",
    "Request",
    "SelfTest",
    "SelfTestReply",
    "Shutdown",
    "ToolInfo",
    "WorkerConfig",
    "decode_body",
    "encode_body",
    "encode_frame",
    "frame",
    "parse_request",
    "read_frame",
    "result_from_json",
    "result_to_json",
    "validate",
]

_M = TypeVar("_M", bound=BaseModel)

PROTOCOL = 1
MAX_FRAME_BYTES = 8 * 1024 * 1024
MAX_DEPTH = 64
MAX_NUMBER_CHARACTERS = 40
_HEADER = 4
# Strings are matched whole so that brackets inside them do not count; possessive, so linear on valid JSON.
_BRACKETS = re.compile(rb'"(?:[^"\\]++|\\.)*+"|[\[{]|[\]}]', re.DOTALL)


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
        raise WireError(f"cannot be sent as JSON: {error}") from error


def decode_body(body: bytes) -> dict[str, Any]:
    """The object in one frame's body.

    Raises:
        WireError: anything but one strict JSON object.
    """
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
    _check_depth(body)
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


def _check_depth(body: bytes) -> None:
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return
    depth = 0
    for match in _BRACKETS.finditer(body):
        first = body[match.start()]
        if first in b"[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise WireError(f"a frame is nested deeper than {MAX_DEPTH}")
        elif first in b"]}":
            depth -= 1


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


# ---------------------------------------------------------------------------------------------- messages


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


Id = Annotated[str, Field(pattern=r"\A[0-9a-f]{32}\z")]
ErrorCode = Literal[
    "tool_error",
    "unknown_tool",
    "target_refused",
    "out_of_memory",
    "internal",
    "bad_request",
    "shutting_down",
    "result_too_large",
]


class WorkerConfig(_Message):
    """What a worker is told when it starts; paths are relative to its staged directory."""

    target: str = "target"
    reference: str | None = None
    plugins: list[str] = []
    device: str = "auto"
    """``cpu``, ``cuda``, ``mps``, or ``auto`` for the best one there is."""
    dtype: str | None = None
    """A torch dtype's name; None keeps the checkpoint's own."""
    threads: int | None = Field(default=None, ge=1)
    """Threads of torch; None leaves torch's default."""


class Hello(_Message):
    """The first request: load the target and say what can be done to it."""

    id: Id
    op: Literal["hello"]
    config: WorkerConfig


class Call(_Message):
    """Run one tool."""

    id: Id
    op: Literal["call"]
    tool: str
    arguments: dict[str, JsonValue]
    seed: int


class SelfTest(_Message):
    """Run every tool's known-answer test."""

    id: Id
    op: Literal["self_test"]


class Shutdown(_Message):
    """Answer and end."""

    id: Id
    op: Literal["shutdown"]


Request = Annotated[Hello | Call | SelfTest | Shutdown, Field(discriminator="op")]
_REQUEST: TypeAdapter[Hello | Call | SelfTest | Shutdown] = TypeAdapter(Request)


class ErrorBody(_Message):
    """Why a request was not done; the message holds no host path and no traceback."""

    code: ErrorCode
    message: str = Field(max_length=4096)


class Reply(_Message):
    """The worker's only kind of message: exactly one of ``ok`` and ``error``."""

    id: Id
    ok: dict[str, JsonValue] | None = None
    error: ErrorBody | None = None


class ToolInfo(_Message):
    """A tool as the investigator is shown it."""

    name: str
    description: str
    rung: int
    parallel: bool
    needs: list[Literal["reference"]]
    parameters: dict[str, JsonValue]
    """JSON schema of the arguments."""


class HelloReply(_Message):
    """What the worker has loaded and what it can do."""

    protocol: Literal[1]
    tools: list[ToolInfo]
    target: dict[str, JsonValue]
    """Facts: parameters, layers, d_model, vocab, dtype, device, weights_sha256."""
    reference: bool
    stamp: dict[str, JsonValue]
    """What the worker says of itself: versions, threads, environment names, open descriptors."""


class SelfTestOutcome(_Message):
    """How one tool's known-answer test went."""

    name: str
    ok: bool
    message: str = ""


class SelfTestReply(_Message):
    """The outcomes of all self-tests."""

    outcomes: list[SelfTestOutcome]


class _Cost(_Message):
    prompt_tokens: int = Field(ge=0)
    generated_tokens: int = Field(ge=0)
    seconds: float = Field(ge=0, allow_inf_nan=False)


class _Artifact(_Message):
    # The name is shown, never used as a path; the alphabet keeps it harmless wherever it is shown.
    name: str = Field(pattern=r"\A[A-Za-z0-9][A-Za-z0-9._ -]{0,99}\z")
    media_type: str = Field(pattern=r"\A[a-z]+/[a-z0-9.+-]{1,60}\z")
    base64: str


class _Result(_Message):
    text: str
    data: dict[str, JsonValue]
    controls: dict[str, JsonValue]
    cost: _Cost
    handles: list[str]
    artifacts: list[_Artifact]


def validate(model: type[_M], value: Any) -> _M:
    """A value as a message of this type.

    Raises:
        WireError: it is not one; the message names the fields, not their content.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise WireError(f"not a valid {model.__name__.lstrip('_')}: {_where(error)}") from error


def parse_request(value: Mapping[str, Any]) -> Hello | Call | SelfTest | Shutdown:
    """A frame as a request.

    Raises:
        WireError: it is not one.
    """
    try:
        return _REQUEST.validate_python(value)
    except ValidationError as error:
        raise WireError(f"not a valid request: {_where(error)}") from error


def _where(error: ValidationError) -> str:
    found = error.errors(include_url=False, include_context=False, include_input=False)[:3]
    return "; ".join(f"{'.'.join(str(part) for part in one['loc'])[:80]}: {one['msg']}" for one in found)


def result_to_json(result: ToolResult) -> dict[str, Any]:
    """A tool's result as it travels; artifacts as base64.

    Raises:
        WireError: the tool returned something that is not a result or not JSON.
    """
    value = {
        "text": result.text,
        "data": dict(result.data),
        "controls": dict(result.controls),
        "cost": vars(result.cost),
        "handles": list(result.handles),
        "artifacts": [
            {
                "name": artifact.name,
                "media_type": artifact.media_type,
                "base64": base64.b64encode(artifact.data).decode("ascii"),
            }
            for artifact in result.artifacts
        ],
    }
    # Checked as the host will see it: a tuple is a list by then, a NaN is found here.
    travelled = decode_body(encode_body(value))
    validate(_Result, travelled)
    return travelled


def result_from_json(value: Any) -> ToolResult:
    """A result as it arrived.

    Raises:
        WireError: it does not follow the schema.
    """
    result = validate(_Result, value)
    return ToolResult(
        text=result.text,
        data=result.data,
        controls=result.controls,
        cost=Cost(**result.cost.model_dump()),
        handles=tuple(result.handles),
        artifacts=tuple(
            Artifact(artifact.name, artifact.media_type, _from_base64(artifact.base64)) for artifact in result.artifacts
        ),
    )


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise WireError("an artifact is not base64") from error
