"""Every exception Marple raises on purpose, in one tree.

::

    MarpleError
    ├── UsageError               something typed or configured is wrong; the CLI exits with 2
    │   ├── UnknownNameError     a name outside the allowed set
    │   ├── MissingKeyError      an API key's environment variable is not set
    │   └── TargetRefusedError   a model directory that cannot be loaded safely
    ├── ToolError                a tool refused its arguments; goes to the investigator as text
    ├── ModelError               a provider failed after the SDK's own retries
    │   ├── AuthenticationError  it does not take the key, or not for this model
    │   └── RateLimitError       it still answers that too much is asked of it
    ├── OrganismError            an organism could not be built or is not what its recipe says
    │   └── GateError            built, but a measured rate is outside the recipe's gate
    ├── SandboxError
    │   ├── SandboxUnavailableError  a backend cannot give here what it promises
    │   ├── WorkerDiedError      the worker process ended
    │   ├── WorkerTimeoutError   no reply within the call's time
    │   ├── WireError            a frame was oversized, malformed or unexpected
    │   ├── EndpointError        a target that is an endpoint gave no reply after all retries
    │   └── StagingError         the target could not be staged
    │       └── LeakError        the staged tree contains a word of the ground truth
    └── TraceError
        ├── CorruptTraceError    a run folder that cannot be read
        └── StorageError         the run folder cannot be written (full disk, permissions)
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "AuthenticationError",
    "CorruptTraceError",
    "EndpointError",
    "GateError",
    "LeakError",
    "MarpleError",
    "MissingKeyError",
    "ModelError",
    "OrganismError",
    "RateLimitError",
    "SandboxError",
    "SandboxUnavailableError",
    "StagingError",
    "StorageError",
    "TargetRefusedError",
    "ToolError",
    "TraceError",
    "UnknownNameError",
    "UsageError",
    "WireError",
    "WorkerDiedError",
    "WorkerTimeoutError",
]


class MarpleError(Exception):
    """Base of every error Marple raises on purpose; its message is fit for a person to read."""


class UsageError(MarpleError):
    """Something typed or configured is wrong; the message names the value and the next step."""


class UnknownNameError(UsageError):
    """A name outside the allowed set; the message lists the nearest valid ones."""

    def __init__(self, what: str, value: str, allowed: Iterable[str], *, hint: str = "") -> None:
        self.what = what
        self.value = value
        self.allowed = sorted(allowed)
        near = difflib.get_close_matches(value, self.allowed, n=3, cutoff=0.4)
        message = f"unknown {what} {value!r}"
        if near:
            message += f"; did you mean {' or '.join(near)}?"
        if len(self.allowed) <= 20:
            message += f" (valid: {', '.join(self.allowed) or 'none'})"
        if hint:
            message += f" {hint}"
        super().__init__(message)


class MissingKeyError(UsageError):
    """An API key's environment variable is not set."""


class TargetRefusedError(UsageError):
    """A model directory that Marple will not load; the message gives the reason."""


class ToolError(MarpleError):
    """A tool refused its arguments; names the value, the allowed set and an example."""


class ModelError(MarpleError):
    """A provider failed after the SDK's own retries; the message holds no key and no header."""

    def __init__(self, message: str, *, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The HTTP status; None where it did not get that far."""


class AuthenticationError(ModelError):
    """A provider does not take the key, or not for this model: asking again is of no use."""


class RateLimitError(ModelError):
    """A provider still answers, after the SDK's own retries, that too much is asked of it."""


class OrganismError(MarpleError):
    """An organism could not be built or is not what its recipe says."""


class GateError(OrganismError):
    """An organism was built but a measured rate is outside its recipe's gate."""


class SandboxError(MarpleError):
    """Base of what can go wrong with a worker."""


class SandboxUnavailableError(SandboxError):
    """A backend cannot give on this machine what it promises; says what is missing and how to get it."""


class WorkerDiedError(SandboxError):
    """The worker process ended before it answered."""


class WorkerTimeoutError(SandboxError):
    """The worker did not answer within the call's time and was killed."""


class WireError(SandboxError):
    """A frame was oversized, malformed or unexpected; the worker is killed."""


class EndpointError(SandboxError):
    """A target that is an endpoint gave no reply after all retries; what it had cost by then is ``tokens``."""

    def __init__(self, message: str, *, tokens: tuple[int, int] = (0, 0)) -> None:
        super().__init__(message)
        self.tokens = tokens
        """Prompt tokens and generated tokens of the replies that had come."""


class StagingError(SandboxError):
    """The target could not be staged for the worker."""


class LeakError(StagingError):
    """The staged tree contains a word of the ground truth; the run does not start."""


class TraceError(MarpleError):
    """Base of what can go wrong with a run folder."""


class CorruptTraceError(TraceError):
    """A run folder that cannot be read."""


class StorageError(TraceError):
    """A run folder that cannot be written: full disk, missing permission."""
