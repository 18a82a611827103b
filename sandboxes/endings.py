"""Why a worker is no longer there."""

from __future__ import annotations

import contextlib
import signal
from dataclasses import dataclass
from typing import Literal

from marple.errors import SandboxError, WireError, WorkerDiedError, WorkerTimeoutError

__all__ = ["WorkerEnd", "manner"]


@dataclass(frozen=True)
class WorkerEnd:
    """Why a worker is no longer there."""

    kind: Literal["died", "timeout", "protocol", "closed"]
    message: str
    status: int | None = None
    """Exit status, minus the number of a signal; None where it was not the worker's own doing."""
    diagnostics: str = ""
    """The last 64 KiB of what the worker printed; may hold host paths and text of any kind."""

    def error(self) -> SandboxError:
        """A fresh exception for a call that cannot be answered any more."""
        kinds: dict[str, type[SandboxError]] = {"timeout": WorkerTimeoutError, "protocol": WireError}
        error = kinds.get(self.kind, WorkerDiedError)(self.message)
        if self.diagnostics:
            error.add_note(f"the worker's last output:\n{self.diagnostics[-4000:]}")
        return error


def manner(status: int) -> str:
    """How a process with this exit status ended, in words."""
    if status >= 0:
        return f"ended with status {status}"
    with contextlib.suppress(ValueError):
        return f"was killed by {signal.Signals(-status).name}"
    return f"was killed by signal {-status}"
