"""Asking runs to stop at their next step: one run alone, or all that one process plays at once."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from langgraph.runtime import RunControl

__all__ = ["Drain"]


class Drain:
    """Where runs register, from whatever thread, that can be asked to finish the step at hand and stop.

    They can be resumed.

    Args:
        on_ask: told once, when it is asked for.
    """

    def __init__(self, on_ask: Callable[[], None] | None = None) -> None:
        self.reason = ""
        """Why it was asked for; empty as long as nobody has."""
        self._on_ask = on_ask
        self._controls: set[RunControl] = set()
        self._turn = threading.Lock()

    def ask(self, reason: str) -> None:
        """Let every run that is registered, or will be, stop at its next step."""
        with self._turn:
            first, self.reason = not self.reason, self.reason or reason
            for control in self._controls:
                control.request_drain(self.reason)
        if first and self._on_ask is not None:
            self._on_ask()

    @contextlib.contextmanager
    def holding(self, control: RunControl) -> Iterator[None]:
        """Registers a run for as long as it is played."""
        with self._turn:
            self._controls.add(control)
            if self.reason:
                control.request_drain(self.reason)
        try:
            yield
        finally:
            with self._turn:
                self._controls.discard(control)

    @contextlib.contextmanager
    def on_signals(self) -> Iterator[None]:
        """The first SIGINT or SIGTERM asks; a second one acts as usual. Only in the main thread."""
        loop = asyncio.get_running_loop()
        installed: list[signal.Signals] = []

        def drain(number: signal.Signals) -> None:
            loop.remove_signal_handler(number)
            self.ask(number.name)

        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(number, drain, number)
                installed.append(number)
        try:
            yield
        finally:
            for number in installed:
                loop.remove_signal_handler(number)
