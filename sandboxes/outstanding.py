"""A request that waits for its answer: its clock, and how much progress it is told of."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from marple.errors import WireError
from marple.tools.messages import PROGRESS_SECONDS, Progress

__all__ = ["OnProgress", "Outstanding"]

OnProgress = Callable[[int, int, str], None]
"""Gets how many are done, of how many, of what."""

_PROGRESS_AT_ONCE = 20


class Outstanding:
    """One request that was sent.

    Args:
        what: the request in words, for errors.
        parse: makes of the reply's content what the caller gets.
        seconds: time the answer may take; progress does not extend it.
        on_progress: is told how far the request is.
        late: called when the time is over.
    """

    def __init__(
        self,
        what: str,
        parse: Callable[[Any], Any],
        *,
        seconds: float,
        on_progress: OnProgress | None = None,
        late: Callable[[Outstanding], None],
    ) -> None:
        self.what = what
        self.parse = parse
        self.seconds = seconds
        self._loop = asyncio.get_running_loop()
        self.answer: asyncio.Future[Any] = self._loop.create_future()
        # A call cancelled in the same turn of the loop never asks for its error; that is no reason to warn.
        self.answer.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._on_progress = on_progress
        self._sent = self._loop.time()
        self._heard = 0
        self._clock = self._loop.call_later(seconds, late, self)

    def hear(self, progress: Progress) -> None:
        """Pass progress on, if the caller still waits and wants it.

        Raises:
            WireError: it is more than a sound worker sends.
        """
        self._heard += 1
        # Twice the honest rate: what was sent in a second can be read in less.
        if self._heard > _PROGRESS_AT_ONCE + 2 / PROGRESS_SECONDS * (self._loop.time() - self._sent):
            raise WireError("a flood of progress messages")
        if self._on_progress is not None and not self.answer.done():
            # Not from here: whatever the caller's function raises is no fault of the worker's.
            self._loop.call_soon(self._on_progress, progress.done, progress.total, progress.what)

    def settle(self, outcome: Any) -> None:
        """Give the caller a value or an exception; nothing happens when nobody waits any more."""
        self._clock.cancel()
        if self.answer.done():
            return
        if isinstance(outcome, BaseException):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)
