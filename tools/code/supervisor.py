"""The code worker: a process that holds a copy of the target and runs code written by an agent in copies of itself.

It speaks the tool worker's protocol and offers one tool, ``python``. One thread reads the requests and everything that
the code's processes send, none of which is trusted. Each call is a copy of this process, made by ``fork`` after the
target was loaded: what the code does to the model, to torch or to Python stays in the copy.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from marple.errors import WireError
from marple.tools import messages, wire
from marple.tools.code.confinement import Unconfined
from marple.tools.code.opening import open_workshop
from marple.tools.code.warden import die_with_parent
from marple.tools.faults import BadRequest, TooLarge, describe_fault

if TYPE_CHECKING:
    from marple.tools.code.visit import Visit
    from marple.tools.code.workshop import Workshop

__all__ = ["main"]

_INSIDE = Path("/sbx/inside")
_FIRST_CHANNEL_DESCRIPTOR = 64
_EXIT_PROTOCOL, _EXIT_UNCONFINED = 70, 71
_MOST_WAITING = 64
_PROGRESS_SECONDS = 1.0
_CHUNK = 64 * 1024
_Long = messages.Call | messages.SelfTest


def main(root: str, *, inside: Path = _INSIDE) -> None:
    """Serve requests until the host says ``shutdown`` or goes away.

    Args:
        root: the staged directory; every path in the configuration is relative to it.
        inside: the directory with the scripts that confine processes.
    """
    requests, replies = _take_channel()
    die_with_parent(os.getppid())
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    try:
        _Supervisor(Path(root), inside, requests, replies).serve()
    except Unconfined as error:
        print(f"confinement: {error}", file=sys.stderr)
        _leave(_EXIT_UNCONFINED)
    except WireError:
        traceback.print_exc()
        _leave(_EXIT_PROTOCOL)


def _take_channel() -> tuple[int, int]:
    """The channel on high descriptors; what is read or printed by chance meets nothing, or standard error."""
    requests, replies = (fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, _FIRST_CHANNEL_DESCRIPTOR) for each in (0, 1))
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, replies


def _leave(status: int) -> NoReturn:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)


@dataclass
class _Running:
    """A request whose code runs now."""

    request: _Long
    visit: Visit
    next_progress: float
    cancelled: bool = False


class _Supervisor:
    """The loop: requests come in, one program runs at a time, answers go out."""

    def __init__(self, root: Path, inside: Path, requests: int, replies: int) -> None:
        self._root = root
        self._inside = inside
        self._requests = requests
        self._replies = replies
        self._parser = wire.FrameParser()
        self._workshop: Workshop | None = None
        self._waiting: deque[_Long] = deque()
        self._running: _Running | None = None

    def serve(self) -> NoReturn:
        """Never returns; the end of the channel ends the process, and with it every other of the worker.

        Raises:
            Unconfined: a protection is missing or does not hold.
            WireError: the host broke the protocol.
        """
        while True:
            while self._running is None and self._waiting:
                self._begin(self._waiting.popleft())
            self._listen()
            if self._running is not None:
                self._attend(self._running)
            elif self._workshop is not None:
                self._workshop.look_after_kept()

    # ------------------------------------------------------------------------------- listening

    def _visits(self) -> list[Visit]:
        kept = self._workshop.kept if self._workshop else None
        running = self._running.visit if self._running else None
        return [visit for visit in dict.fromkeys((running, kept)) if visit is not None]

    def _listen(self) -> None:
        """Wait until something can be read or written, or until a clock is due, and do it."""
        poll = select.poll()
        poll.register(self._requests, select.POLLIN)
        owners: dict[int, Visit] = {}
        for visit in self._visits():
            for descriptor in visit.reading:
                poll.register(descriptor, select.POLLIN)
                owners[descriptor] = visit
            for descriptor in visit.writing:
                poll.register(descriptor, select.POLLOUT)
                owners[descriptor] = visit
        for descriptor, event in poll.poll(self._patience()):
            if descriptor == self._requests:
                self._hear_host()
            elif event & select.POLLOUT or descriptor in owners[descriptor].writing:
                owners[descriptor].write()
            else:
                owners[descriptor].read(descriptor)

    def _patience(self) -> float | None:
        """Milliseconds until the running program's clock or its next progress message is due."""
        if self._running is None:
            return None
        due = min(self._running.visit.next_moment, self._running.next_progress)
        return max(0.0, due - time.monotonic()) * 1000 + 1

    def _hear_host(self) -> None:
        data = os.read(self._requests, _CHUNK)
        if not data:
            self._stop()
        for value in self._parser.feed(data):
            self._take(messages.parse_request(value))

    def _take(self, request: messages.Request) -> None:
        if isinstance(request, messages.Call | messages.SelfTest):
            if len(self._waiting) >= _MOST_WAITING:
                raise WireError("more calls wait than a host may have outstanding")
            self._waiting.append(request)
            return
        self._answer(request, lambda: self._do(request))
        if isinstance(request, messages.Shutdown):
            self._stop()

    def _do(self, request: messages.Request) -> Mapping[str, Any]:
        if isinstance(request, messages.Hello):
            if self._workshop is not None:
                raise BadRequest("hello was already said")
            self._workshop = open_workshop(self._root, request.config, self._inside)
            return self._workshop.describe()
        if isinstance(request, messages.Digest):
            return self._opened().digest()
        if isinstance(request, messages.Cancel):
            self._cancel(request.call)
        return {}

    def _cancel(self, call: str) -> None:
        for request in [one for one in self._waiting if one.id == call]:
            self._waiting.remove(request)
            self._send(_refusal(request.id, "cancelled", "the call was cancelled"))
        if self._running is not None and self._running.request.id == call:
            self._running.cancelled = True
            self._running.visit.end("cancelled")

    def _opened(self) -> Workshop:
        if self._workshop is None:
            raise BadRequest("hello must come first")
        return self._workshop

    # ------------------------------------------------------------------------------- running

    def _begin(self, request: _Long) -> None:
        try:
            workshop = self._opened()
            visit = workshop.begin(request) if isinstance(request, messages.Call) else workshop.begin_self_test()
        except Unconfined:
            raise
        except Exception as error:
            self._send(_refusal(request.id, *describe_fault(error)))
            return
        self._running = _Running(request, visit, time.monotonic() + _PROGRESS_SECONDS)

    def _attend(self, running: _Running) -> None:
        """Look at the clock, tell the host how it goes, answer when the program is over."""
        now = time.monotonic()
        if not running.visit.cell_is_over:
            running.visit.check_clock()
            if now >= running.next_progress:
                running.next_progress = now + _PROGRESS_SECONDS
                total = running.visit.cell.seconds
                progress = {"done": min(total, int(now - running.visit.began)), "total": total, "what": "seconds"}
                self._send({"id": running.request.id, "progress": progress})
            return
        self._running = None
        workshop = self._opened()
        result = workshop.finish(running.visit)
        if running.cancelled:
            self._send(_refusal(running.request.id, "cancelled", "the call was cancelled"))
        elif isinstance(running.request, messages.SelfTest):
            self._answer(running.request, lambda: workshop.self_test_outcome(result))
        else:
            self._answer(running.request, lambda: messages.result_to_json(result))

    # ------------------------------------------------------------------------------- answering

    def _answer(self, request: messages.Request, answer: Callable[[], Mapping[str, Any]]) -> None:
        try:
            body = wire.encode_body({"id": request.id, "ok": answer()})
            if len(body) > wire.MAX_FRAME_BYTES:
                raise TooLarge(f"the result takes {len(body)} bytes; the limit is {wire.MAX_FRAME_BYTES}")
            self._write(wire.frame(body))
        except Unconfined as error:
            self._send(_refusal(request.id, "unconfined", str(error)))
        except Exception as error:
            self._send(_refusal(request.id, *describe_fault(error)))

    def _send(self, value: Mapping[str, Any]) -> None:
        self._write(wire.encode_frame(value))

    def _write(self, frame: bytes) -> None:
        try:
            while frame:
                frame = frame[os.write(self._replies, frame) :]
        except OSError:
            self._stop()

    def _stop(self) -> NoReturn:
        """End every process of the worker, then this one."""
        for visit in self._visits():
            visit.end("cancelled")
        for visit in self._visits():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(visit.warden, 0)
        _leave(0)


def _refusal(request: str, code: str, message: str) -> dict[str, Any]:
    return {"id": request, "error": {"code": code, "message": message}}


if __name__ == "__main__":
    main(sys.argv[1])
