"""From an exception in the worker to the code and the message the host is sent."""

from __future__ import annotations

import re
import traceback

from marple.errors import TargetRefusedError, ToolError
from marple.tools.calls import CallCancelled
from marple.tools.messages import ErrorCode
from marple.tools.wire import TooManyValuesError

__all__ = ["BadRequest", "TooLarge", "UnknownTool", "describe_fault"]


class BadRequest(Exception):
    """The host asked for something that makes no sense now."""


class UnknownTool(Exception):
    """The host named a tool that is not offered."""


class TooLarge(Exception):
    """A result does not fit into a frame."""


_CODES: tuple[tuple[type[Exception], ErrorCode], ...] = (
    (ToolError, "tool_error"),
    (UnknownTool, "unknown_tool"),
    (BadRequest, "bad_request"),
    (TooLarge, "result_too_large"),
    (TooManyValuesError, "result_too_large"),
    (TargetRefusedError, "target_refused"),
)
_PATH = re.compile(r"""(?<![^\s'"(=])/[^\s'":,)]+""")


def describe_fault(error: BaseException) -> tuple[ErrorCode, str]:
    """Code and message of an exception; the message holds no path and no traceback, which go to standard error."""
    if isinstance(error, CallCancelled):
        return "cancelled", "the call was cancelled"
    for kind, code in _CODES:
        if isinstance(error, kind):
            return code, _fit(str(error))
    traceback.print_exception(error)
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return "out_of_memory", "the worker ran out of memory; ask for less at once"
    return "internal", _fit(_PATH.sub("<path>", f"{type(error).__name__}: {error}"), 500)


def _fit(message: str, limit: int = 4000) -> str:
    # A lone surrogate in a message must not keep the error from being sent.
    clean = message.encode("utf-8", "replace").decode("utf-8")
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
