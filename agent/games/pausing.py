"""What a player is told of a pause that somebody asked for, since a move waits until it is over.

Only the standard library and the traces are imported here.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from marple.errors import TraceError, UsageError
from marple.traces.control import Request, latest

__all__ = ["LOOK_SECONDS", "check_not_paused", "pause_of", "pause_text", "telling_of_pauses"]

LOOK_SECONDS = 0.3
"""Time between two looks at what is wanted of a run."""


def pause_of(run: Path) -> Request | None:
    """Who has asked for the pause that holds a run, or is to hold it; None where it is to go on."""
    try:
        asked = latest(run)
    except TraceError:
        return None  # the run reads it so, too
    return asked if asked is not None and asked.wanted == "pause" else None


def pause_text(run: Path, asked: Request) -> str:
    """In one sentence that it is paused and how to let it go on."""
    by = f" (asked for by {asked.by})" if asked.by else ""
    return f"the run {run.name} is paused{by}; marple go {run} lets it go on, marple cancel {run} ends it"


def check_not_paused(run: Path) -> None:
    """Refuse a move that would wait for as long as somebody wants.

    Raises:
        UsageError: the run is to be paused.
    """
    asked = pause_of(run)
    if asked is not None:
        raise UsageError(f"{pause_text(run, asked)}. Nothing was called and nothing is lost: call it again then")


@contextlib.contextmanager
def telling_of_pauses(run: Path, tell: Callable[[Request], None]) -> Iterator[None]:
    """While something is waited for: tell at once that the run is paused, or as soon as it is; once for each pause."""
    over = threading.Event()

    def look() -> None:
        told: Request | None = None
        while True:
            asked = pause_of(run)
            if asked is not None and asked != told:
                tell(asked)
            told = asked
            if over.wait(LOOK_SECONDS):
                return

    thread = threading.Thread(target=look, name="marple-pauses", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
