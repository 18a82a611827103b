"""What a provider's failure means: an outcome of the turn, worth another attempt, or the end.

Reads the exceptions of both SDKs by their common shape (``status_code``, ``body``, ``request_id``), so that
it imports neither.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from marple.agent.models.wellformed import well_formed

__all__ = ["BrokenStreamError", "Failure", "UnreadableStreamError", "read_failure"]

_OVERFLOW_CODES = {
    "context_length_exceeded",
    "exceed_context_size_error",
    "model_context_window_exceeded",
    "request_too_large",
    "string_above_max_length",
}
_OVERFLOW_WORDS = re.compile(
    r"prompt is too long|input is too long|exceeds? (the |its )?(available |maximum |model'?s? )?context"
    r"|context[ _](length|size|window|limit)s?[^.]{0,40}exceed|maximum context (length|size)"
    r"|exceeds? context limit"
    r"|reduce the length of the (messages|prompt|input)|longer than the (model'?s? )?context",
    re.IGNORECASE,
)
_REFUSAL_CODES = re.compile(r"content_filter|(^|_)policy(_violation)?$|moderation", re.IGNORECASE)
_REFUSAL_WORDS = re.compile(r"flagged|usage polic|content management policy", re.IGNORECASE)
_FATAL_CODES = re.compile(
    r"unreadable|invalid|authentication|permission|billing|not_found|insufficient_quota", re.IGNORECASE
)
_SECRET_SHAPES = re.compile(r"\bsk-[\w*.…-]{4,}|\bbearer\s+[^\s\"',}]+", re.IGNORECASE)
_LONGEST = 400


class BrokenStreamError(Exception):
    """A stream ended before the provider said why it stopped."""


class UnreadableStreamError(Exception):
    """A stream held something that the API does not document."""

    code = "unreadable"


@dataclass(frozen=True)
class Failure:
    """One failure, without headers and without keys."""

    kind: Literal["context_overflow", "refusal", "transient", "fatal"]
    """The first two are outcomes of a turn; ``transient`` is worth another attempt when it broke a stream."""
    message: str
    """One line, fit for a person."""
    request_id: str | None
    status: int | None = None
    """The HTTP status, where it got that far."""


def read_failure(error: Exception, *, secrets: Collection[str] = ()) -> Failure:
    """Classify ``error`` and put it in one line from which every string in ``secrets`` is removed."""
    status = getattr(error, "status_code", None)
    code, words = _code_and_words(error)
    label = f"HTTP {status}" if isinstance(status, int) and status >= 400 else "stream error"
    if status is None and not code:
        line = _transport_words(error, words)
    else:
        line = f"{label} {code}: {words}" if code else f"{label}: {words}"
    request_id = getattr(error, "request_id", None)
    return Failure(_kind(status, code, words), _scrubbed(line, secrets), request_id, status)


def _kind(status: int | None, code: str, words: str) -> Literal["context_overflow", "refusal", "transient", "fatal"]:
    # A rate limit may say "reduce the length of the messages"; it is not an overflow.
    rejected = status not in (401, 429) and not (status is not None and status >= 500)
    if rejected and (status == 413 or code in _OVERFLOW_CODES or _OVERFLOW_WORDS.search(words)):
        return "context_overflow"
    if rejected and (_REFUSAL_CODES.search(code) or (status in (400, 403) and _REFUSAL_WORDS.search(words))):
        return "refusal"
    if code == "invalid_prompt" and _REFUSAL_WORDS.search(words):
        return "refusal"
    return "fatal" if _FATAL_CODES.search(code) or (status or 0) in range(400, 500) else "transient"


def _code_and_words(error: Exception) -> tuple[str, str]:
    """The provider's code for the failure (empty if none) and its message, from any of the usual bodies."""
    body: Any = getattr(error, "body", None)
    if isinstance(body, Mapping) and isinstance(body.get("error"), (Mapping, str)):
        body = body["error"]
    if isinstance(body, Mapping):
        words = body.get("message") or body.get("detail") or body
        code = body.get("code")
        code = code if isinstance(code, str) and not code.isdigit() else body.get("type")
        return str(code or ""), str(words)
    return str(getattr(error, "code", None) or ""), str(body or error)


def _transport_words(error: Exception, words: str) -> str:
    """A failure below HTTP: where it was going and what the transport said."""
    if isinstance(error, json.JSONDecodeError):
        return f"the stream is not JSON: {error}"
    cause = str(error.__cause__ or "")
    cause = f" ({cause})" if cause and cause != words else ""
    request = vars(error).get("request") or vars(error).get("_request")
    url = urlsplit(str(request.url)) if request is not None else None
    where = f"{url.scheme}://{url.hostname}{f':{url.port}' if url.port else ''}: " if url else ""
    return f"{where}{words.rstrip('.') or type(error).__name__}{cause}"


def _scrubbed(text: str, secrets: Collection[str]) -> str:
    for secret in secrets:
        text = text.replace(secret, "[key]")
    text = " ".join(_SECRET_SHAPES.sub("[key]", well_formed(text)).split())
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
