"""The messages between host and worker, with a strict schema each: requests, replies, a tool's result.

The host asks and the worker answers; a request's random id ties the two together. Nothing here imports torch.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, JsonValue, TypeAdapter, ValidationError, model_validator

from marple.errors import WireError
from marple.tools.contract import Artifact, Cost, Need, ToolResult
from marple.tools.wire import decode_body, encode_body

__all__ = [
    "PROGRESS_SECONDS",
    "PROGRESS_WORDS",
    "PROTOCOL",
    "Call",
    "Cancel",
    "Digest",
    "Digests",
    "ErrorBody",
    "ErrorCode",
    "Hello",
    "HelloReply",
    "Progress",
    "Reply",
    "Request",
    "SelfTest",
    "SelfTestOutcome",
    "SelfTestReply",
    "Shutdown",
    "ToolInfo",
    "WorkerConfig",
    "parse_request",
    "result_from_json",
    "result_to_json",
    "validate",
]

_M = TypeVar("_M", bound=BaseModel)

PROTOCOL = 3
_MOST = 1000
PROGRESS_SECONDS = 0.2
"""The worker leaves at least this long between two progress messages of one request."""
PROGRESS_WORDS = 200
"""Most characters of what a progress message says is being done."""


class _Message(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _has_no_more_keys(cls, value: Any) -> Any:
        # Pydantic would describe each unknown key, and a frame has room for half a million.
        if isinstance(value, dict) and len(value) > len(cls.model_fields):
            raise ValueError(f"more than {len(cls.model_fields)} keys")
        return value


Id = Annotated[str, Field(pattern=r"\A[0-9a-f]{32}\z")]
Sha256 = Annotated[str, Field(pattern=r"\A[0-9a-f]{64}\z")]
ErrorCode = Literal[
    "tool_error",
    "unknown_tool",
    "target_refused",
    "out_of_memory",
    "internal",
    "bad_request",
    "shutting_down",
    "result_too_large",
    "cancelled",
    "unconfined",
]


class WorkerConfig(_Message):
    """What a worker is told when it starts; paths are relative to its staged directory."""

    target: str = "target"
    reference: str | None = None
    adapter: str | None = None
    """A PEFT adapter of the target, kept apart from it: the target is base and adapter on one copy of the weights, and
    its reference the same copy without the adapter."""
    saes: list[str] = []
    """Directories with a sparse autoencoder of the target each."""
    corpus: str | None = None
    """A JSONL file of transcripts."""
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
    fresh: bool = False
    """Compute again what the worker could serve from its result cache."""


class Cancel(_Message):
    """End one call early; answered at once, whether or not there is such a call."""

    id: Id
    op: Literal["cancel"]
    call: Id


class SelfTest(_Message):
    """Run every tool's known-answer test."""

    id: Id
    op: Literal["self_test"]


class Digest(_Message):
    """Compute the digests of the weights as they are in memory now."""

    id: Id
    op: Literal["digest"]


class Shutdown(_Message):
    """Answer and end."""

    id: Id
    op: Literal["shutdown"]


Request = Annotated[Hello | Call | Cancel | SelfTest | Digest | Shutdown, Field(discriminator="op")]
_REQUEST: TypeAdapter[Hello | Call | Cancel | SelfTest | Digest | Shutdown] = TypeAdapter(Request)


class ErrorBody(_Message):
    """Why a request was not done; the message holds no host path and no traceback."""

    code: ErrorCode
    message: str = Field(max_length=4096)


class Progress(_Message):
    """How far a request is."""

    done: int = Field(ge=0)
    total: int = Field(ge=0)
    # Shown on a terminal while the call runs, so nothing that a terminal would obey.
    what: str = Field(max_length=PROGRESS_WORDS, pattern=r"\A[^\x00-\x1f\x7f-\x9f]*\z")


class Reply(_Message):
    """The worker's only kind of message: exactly one of ``ok``, ``error`` and ``progress``; the last is no answer."""

    id: Id
    ok: dict[str, JsonValue] | None = None
    error: ErrorBody | None = None
    progress: Progress | None = None


class ToolInfo(_Message):
    """A tool as the investigator is shown it."""

    name: str
    description: str
    rung: int
    parallel: bool
    needs: list[Need]
    parameters: dict[str, JsonValue]
    """JSON schema of the arguments."""


class Digests(_Message):
    """SHA-256 over the names, types, shapes and values of all weights, in hexadecimal digits."""

    target: Sha256
    """The target's parameters and buffers, with those of an adapter that is kept apart."""
    reference: Sha256 | None = None
    """None where there is no reference, or where it shares the target's copy of the weights."""
    saes: dict[str, Sha256] = Field(default={}, max_length=_MOST)


class HelloReply(_Message):
    """What the worker has loaded and what it can do."""

    protocol: Literal[3]
    tools: list[ToolInfo] = Field(max_length=_MOST)
    target: dict[str, JsonValue]
    """Facts: parameters, layers, d_model, vocab, dtype, device, weights_sha256, saes, corpus."""
    reference: bool
    digests: Digests | None = None
    """The weights as they were loaded; None from a worker whose results are no evidence."""
    stamp: dict[str, JsonValue]
    """What the worker says of itself: versions, threads, environment names, open descriptors."""


class SelfTestOutcome(_Message):
    """How one tool's known-answer test went."""

    name: str
    ok: bool
    message: str = ""


class SelfTestReply(_Message):
    """The outcomes of all self-tests."""

    outcomes: list[SelfTestOutcome] = Field(max_length=_MOST)


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
    handles: list[str] = Field(max_length=_MOST)
    artifacts: list[_Artifact] = Field(max_length=_MOST)


def validate(model: type[_M], value: Any) -> _M:
    """A value as a message of this type.

    Raises:
        WireError: it is not one; the message names the fields, not their content.
    """
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise WireError(f"not a valid {model.__name__.lstrip('_')}: {_where(error)}") from error


def parse_request(value: Mapping[str, Any]) -> Hello | Call | Cancel | SelfTest | Digest | Shutdown:
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
