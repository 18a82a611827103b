"""One process with code in it, as the supervisor sees it: pipes that are read with bounds, a clock, a way to end it."""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import secrets
import signal
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NoReturn

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from marple.errors import WireError
from marple.tools import wire
from marple.tools.code import caps
from marple.tools.code.artifacts import Saved, Unacceptable, look_at
from marple.tools.code.child import NOT_SET_UP, Cell, Pipes, live
from marple.tools.code.confinement import Confinement, Unconfined
from marple.tools.code.printed import Printed
from marple.tools.code.warden import END, FREEZE, THAW, watch_over
from marple.tools.target.target import Target

__all__ = ["Ended", "Report", "Visit", "begin_visit"]

Ended = Literal["finished", "raised", "exited", "crashed", "killed", "timed_out", "flooded", "cancelled"]

_CHUNK = 64 * 1024
_END_SECONDS = 20.0
"""Time in which a warden must have ended everything."""


class _FromCode(BaseModel):
    """A frame that the code's process sends: something saved, or how a cell ended. All of it may be made up."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    set_up: bool = False
    """The code begins; sent before it does."""
    saved: _SavedFrame | None = None
    done: Literal["finished", "raised", "exited"] | None = None
    error: str = Field(default="", max_length=20_000)
    tokens: list[int] = Field(default=[0, 0], min_length=2, max_length=2)


class _SavedFrame(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    name: str = Field(max_length=200)
    media_type: str = Field(max_length=60)
    base64: str


@dataclass
class Report:
    """What came of one cell."""

    ended: Ended
    seconds: float
    printed: Printed
    error: str = ""
    """The traceback of what was raised, or in words how the process ended."""
    saved: Mapping[str, Saved] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""
    tokens: tuple[int, int] = (0, 0)
    """Prompt tokens and generated tokens, as the code's process counted them."""
    alive: bool = False
    """Whether the process waits for another cell."""


class Visit:
    """A warden, the code's process below it, and the supervisor's ends of their pipes.

    Args:
        warden: process id.
        workplace: the directory of the code; empty once the warden has ended.
        output: the reading end of what is printed.
        stream: the reading end of what is saved.
        report: the reading end of what the warden says.
        orders: the writing end for further cells.
        cell: what runs first.
    """

    def __init__(
        self, warden: int, workplace: Path, *, output: int, stream: int, report: int, orders: int, cell: Cell
    ) -> None:
        self.warden = warden
        self._workplace = workplace
        self._readers: dict[int, Callable[[bytes], None]] = {
            output: self._hear_output,
            stream: self._hear_stream,
            report: self._hear_warden,
        }
        self._output, self._stream, self._report = output, stream, report
        self._orders = orders
        self._waiting_order = b""
        self._said = b""
        self._status: int | None = None
        self._over = False
        self._forced: tuple[Ended, str] | None = None
        self._must_be_over: float | None = None
        for descriptor in (*self._readers, orders):
            os.set_blocking(descriptor, False)
        self._begin(cell)

    def _begin(self, cell: Cell) -> None:
        self.cell = cell
        self.began = time.monotonic()
        self._parser: wire.FrameParser | None = wire.FrameParser()
        self._set_up = False
        self._streamed = 0
        self._printed = Printed()
        self._saved: dict[str, Saved] = {}
        self._notes: dict[str, None] = {}
        self._done: _FromCode | None = None

    # ------------------------------------------------------------------------------- for the supervisor's loop

    @property
    def reading(self) -> list[int]:
        """Descriptors to be read."""
        return list(self._readers)

    @property
    def writing(self) -> list[int]:
        """Descriptors that something waits to be written to."""
        return [self._orders] if self._waiting_order else []

    @property
    def next_moment(self) -> float:
        """When ``check_clock`` has something to do, on the monotonic clock."""
        return self._must_be_over or self.began + self.cell.seconds

    def read(self, descriptor: int) -> None:
        """Read what is there, once."""
        with contextlib.suppress(BlockingIOError):
            data = os.read(descriptor, _CHUNK)
            if data:
                self._readers[descriptor](data)
            else:
                del self._readers[descriptor]
                os.close(descriptor)
                if descriptor == self._report and not self._over:
                    raise Unconfined("the warden of a call ended before the call")

    def write(self) -> None:
        """Write what the pipe takes of the cell that waits."""
        try:
            self._waiting_order = self._waiting_order[os.write(self._orders, self._waiting_order) :]
        except BlockingIOError:
            return
        except BrokenPipeError:
            self._waiting_order = b""

    def check_clock(self) -> None:
        """End the call when its time is over.

        Raises:
            Unconfined: it should have ended long ago and has not.
        """
        now = time.monotonic()
        if self._must_be_over is not None and now > self._must_be_over:
            raise Unconfined("the processes of a call could not be ended")
        if self._must_be_over is None and now > self.began + self.cell.seconds:
            self.end("timed_out")

    def end(self, why: Ended, error: str = "") -> None:
        """Have the warden end every process of the call; ``error`` says more of why."""
        if self._must_be_over is None:
            self._forced = (why, error)
            self._must_be_over = time.monotonic() + _END_SECONDS
            os.kill(self.warden, END)

    # ------------------------------------------------------------------------------- one cell after the other

    @property
    def cell_is_over(self) -> bool:
        """Whether there is a report to take: everything has ended, or a process that is kept is done with its cell."""
        return self.is_over or (self.cell.keep and self._is_done and self._must_be_over is None)

    @property
    def is_over(self) -> bool:
        """Whether no process of it is left and all its pipes are read to their end."""
        return self._over and self._output not in self._readers and self._stream not in self._readers

    @property
    def _is_done(self) -> bool:
        return self._done is not None and self._done.done is not None and self._done.done != "exited"

    def freeze(self) -> None:
        """Stop its processes until the next cell."""
        os.kill(self.warden, FREEZE)

    def go_on(self, cell: Cell) -> None:
        """Let a kept process run another cell."""
        self._begin(cell)
        self._waiting_order = wire.encode_frame(vars(cell))
        os.kill(self.warden, THAW)

    def report(self) -> Report:
        """What came of the cell."""
        if not self.is_over:
            # The code's process has written everything before it said that it is done.
            self._read_all(self._output)
        ended, error = self._ended()
        tokens = self._done.tokens if self._done else [0, 0]
        most = 10**9
        return Report(
            ended=ended,
            seconds=time.monotonic() - self.began,
            printed=self._printed,
            error=error,
            saved=dict(self._saved),
            notes=list(self._notes),
            tokens=(min(max(0, tokens[0]), most), min(max(0, tokens[1]), most)),
            alive=not self.is_over,
        )

    def clear(self) -> None:
        """Remove what is left of it, which ended before: its zombie, its directory, its descriptors.

        Raises:
            Unconfined: its directory could not be emptied.
        """
        os.waitpid(self.warden, 0)
        for descriptor in (*self._readers, self._orders):
            os.close(descriptor)
        self._readers.clear()
        try:
            self._workplace.rmdir()
        except OSError as error:
            raise Unconfined(f"the directory of a call could not be removed: {error.strerror}") from error

    def _read_all(self, descriptor: int) -> None:
        while descriptor in self._readers:
            before = self._printed.total
            self.read(descriptor)
            if self._printed.total == before:
                return

    def _ended(self) -> tuple[Ended, str]:
        if self._forced is not None:
            return self._forced
        done = self._done
        if done is not None and done.done is not None:
            return done.done, done.error
        status = self._status or 0
        if os.WIFEXITED(status):
            return "exited", f"status {os.WEXITSTATUS(status)}"
        return _killed_by(os.WTERMSIG(status))

    # ------------------------------------------------------------------------------- what is heard

    def _hear_output(self, data: bytes) -> None:
        self._printed.add(data)
        if self._printed.total > caps.FLOOD_BYTES:
            self.end("flooded")

    def _hear_stream(self, data: bytes) -> None:
        self._streamed += len(data)
        if self._streamed > caps.STREAM_BYTES:
            self.end("flooded")
        if self._parser is None:
            return
        try:
            for value in self._parser.feed(data):
                self._hear_code(_FromCode.model_validate(value))
        except (WireError, ValidationError):
            self._parser = None
            self._note("the code wrote into the channel of save() itself; what follows there was not read")
            if self.cell.keep:
                # Nobody would hear any more when a cell is done.
                self.end("killed", "it wrote into the channel of save() itself")

    def _hear_code(self, said: _FromCode) -> None:
        self._set_up = self._set_up or said.set_up
        if said.done is not None:
            self._done = self._done or said
        if said.saved is not None and self._done is None:
            self._keep(said.saved)

    def _keep(self, sent: _SavedFrame) -> None:
        try:
            saved = look_at(sent.name, sent.media_type, base64.b64decode(sent.base64, validate=True))
        except (Unacceptable, binascii.Error, ValueError) as error:
            self._note(f"something saved was left out: {error}")
            return
        others = {name: one for name, one in self._saved.items() if name != saved.name}
        size = len(saved.data) + sum(len(one.data) for one in others.values())
        if size > caps.SAVED_BYTES or len(others) >= caps.SAVED_MOST:
            self._note(f"{saved.name} was left out: a call may save {caps.SAVED_MOST} things of 5 MiB together")
            return
        self._saved = {**others, saved.name: saved}

    def _hear_warden(self, data: bytes) -> None:
        self._said += data
        while b"\n" in self._said:
            line, _, self._said = self._said.partition(b"\n")
            said = json.loads(line)
            if "unconfined" in said:
                raise Unconfined(said["unconfined"])
            self._status, self._over = said["ended"], True
            if os.WIFEXITED(self._status) and os.WEXITSTATUS(self._status) == NOT_SET_UP and not self._was_set_up():
                raise Unconfined(f"the code's process was not confined: {self._printed.text()[:300]}")

    def _was_set_up(self) -> bool:
        """Whether the code has begun; it can end its process with any status."""
        if not self._set_up and self._stream in self._readers:
            self.read(self._stream)
        return self._set_up

    def _note(self, text: str) -> None:
        if len(self._notes) < 20:
            self._notes[text] = None


def _killed_by(number: int) -> tuple[Ended, str]:
    names = {
        signal.SIGSEGV: "a segmentation fault in native code (SIGSEGV)",
        signal.SIGABRT: "native code gave up (SIGABRT)",
        signal.SIGFPE: "an arithmetic error in native code (SIGFPE)",
        signal.SIGBUS: "a bus error in native code (SIGBUS)",
        signal.SIGSYS: "a system call that the sandbox forbids (SIGSYS)",
        signal.SIGXCPU: "it used more processor time than its time allows (SIGXCPU)",
        signal.SIGXFSZ: "it wrote a file larger than 48 MiB (SIGXFSZ)",
    }
    if number == signal.SIGKILL:
        return "killed", "it was killed (SIGKILL), by itself or because the sandbox ran out of memory"
    with contextlib.suppress(ValueError):
        number = signal.Signals(number)
    return "crashed", names.get(number, f"it was ended by {getattr(number, 'name', number)}")  # type: ignore[call-overload]


def begin_visit(
    cell: Cell, *, target: Target, device: str, confinement: Confinement, limit_memory: bool = True
) -> Visit:
    """Start a process for a cell, a copy of this one, under a warden."""
    workplace = Path(tempfile.gettempdir()) / f"code-{secrets.token_hex(8)}"
    workplace.mkdir(mode=0o700)
    output, stream, report, orders = os.pipe(), os.pipe(), os.pipe(), os.pipe()
    supervisor = os.getpid()
    pipes = Pipes(output=output[1], stream=stream[1], orders=orders[0])

    def run() -> NoReturn:
        live(
            cell,
            pipes,
            warden=os.getppid(),
            supervisor=supervisor,
            confinement=confinement,
            workplace=workplace,
            target=target,
            device=device,
            limit_memory=limit_memory,
        )

    warden = os.fork()
    if warden == 0:
        keep = (pipes.output, pipes.stream, pipes.orders)
        watch_over(
            run, supervisor=supervisor, confinement=confinement, workplace=workplace, report=report[1], keep=keep
        )
    for descriptor in (output[1], stream[1], report[1], orders[0]):
        os.close(descriptor)
    return Visit(warden, workplace, output=output[0], stream=stream[0], report=report[0], orders=orders[1], cell=cell)
