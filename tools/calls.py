"""The call under way, as the code inside it sees it: report progress, notice that it was cancelled, leave a note.

Outside a worker's call every function here does nothing, so that tools and the engine can be used as a library.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

__all__ = ["Call", "CallCancelled", "check_cancelled", "current_call", "during", "note", "report_progress"]


class CallCancelled(Exception):
    """The host no longer wants this call; it unwinds the tool and is no fault of the tool's."""


@dataclass
class Call:
    """What a running call is told and what it tells."""

    cancelled: threading.Event = field(default_factory=threading.Event)
    """Set by the host's side; the call ends at its next check."""
    on_progress: Callable[[int, int, str], None] | None = None
    """Gets how many are done, of how many, of what."""
    fresh: bool = False
    """Compute everything again instead of serving it from the result cache (for replication)."""
    notes: list[str] = field(default_factory=list)
    """Lines that are put under the result's text, in order, each once."""


_CURRENT: contextvars.ContextVar[Call | None] = contextvars.ContextVar("marple_call", default=None)


@contextmanager
def during(call: Call) -> Iterator[Call]:
    """Make ``call`` the one under way in this thread."""
    token = _CURRENT.set(call)
    try:
        yield call
    finally:
        _CURRENT.reset(token)


def current_call() -> Call | None:
    """The call under way in this thread, or None."""
    return _CURRENT.get()


def report_progress(done: int, total: int, what: str) -> None:
    """Say how far the call is, for example ``report_progress(128, 400, "prompts")``.

    Raises:
        CallCancelled: the call was cancelled.
    """
    check_cancelled()
    call = current_call()
    if call is not None and call.on_progress is not None:
        call.on_progress(done, total, what)


def check_cancelled() -> None:
    """Raise ``CallCancelled`` if the host has cancelled the call under way."""
    call = current_call()
    if call is not None and call.cancelled.is_set():
        raise CallCancelled


def note(text: str) -> None:
    """Add a line to the text of the call's result, once."""
    call = current_call()
    if call is not None and text not in call.notes:
        call.notes.append(text)
