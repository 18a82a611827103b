"""The worker: a process of its own that holds the target and runs the tools.

Started as ``python -I -B -m marple.tools.worker ROOT`` with an empty environment. It reads requests from descriptor 0
and answers on descriptor 1, both of which it moves out of the way before any other code runs, so that nothing a
library prints can end up in a reply. A thread of its own reads the requests; each call runs in a thread too, so that
the calls of many investigators meet in the engine's batches, and is answered when it is done, whatever order they came
in. The end of the channel ends the process.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from marple.errors import WireError
from marple.tools import messages, wire
from marple.tools.calls import Call, during
from marple.tools.faults import BadRequest, TooLarge, describe_fault
from marple.tools.serving import Served, load

__all__ = ["main"]

_FIRST_CHANNEL_DESCRIPTOR = 64
_PR_SET_PDEATHSIG = 1
_EXIT_PROTOCOL = 70
_MOST_CALLS = 64
_Long = messages.Call | messages.SelfTest | messages.Digest


def main(root: str) -> None:
    """Serve requests until the host says ``shutdown`` or goes away.

    Args:
        root: the staged directory; every path in the configuration is relative to it.
    """
    requests, replies = _take_channel()
    _die_with_parent()
    waiting: queue.SimpleQueue[messages.Request] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests, waiting), daemon=True, name="requests").start()
    session = _Session(Path(root), _Replies(replies))
    while True:
        session.take(waiting.get())


# ---------------------------------------------------------------------------------------------- channel


class _Replies:
    """Sends whole frames, one at a time, whichever threads they come from."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, frame: bytes) -> None:
        """Send one frame; a host that has gone away ends the process."""
        try:
            with self._lock:
                self._stream.write(frame)
                self._stream.flush()
        except OSError:
            _leave(0)


def _take_channel() -> tuple[BinaryIO, BinaryIO]:
    requests = fcntl.fcntl(0, fcntl.F_DUPFD_CLOEXEC, _FIRST_CHANNEL_DESCRIPTOR)
    replies = fcntl.fcntl(1, fcntl.F_DUPFD_CLOEXEC, _FIRST_CHANNEL_DESCRIPTOR)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(requests, "rb"), os.fdopen(replies, "wb")


def _die_with_parent() -> None:
    # The end of the channel ends the worker too, but a library that never gives up the interpreter lock
    # would keep the reading thread from seeing it.
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _read(requests: BinaryIO, waiting: queue.SimpleQueue[messages.Request]) -> None:
    try:
        while (value := wire.read_frame(requests)) is not None:
            waiting.put(messages.parse_request(value))
    except WireError:
        traceback.print_exc()
        _leave(_EXIT_PROTOCOL)
    _leave(0)


def _leave(status: int) -> NoReturn:
    # No interpreter shutdown: other threads may be inside native code.
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)


# ---------------------------------------------------------------------------------------------- session


class _Session:
    """Answers requests: calls, self-tests and digests in threads, everything else at once."""

    def __init__(self, root: Path, replies: _Replies) -> None:
        self._root = root
        self._replies = replies
        self._served: Served | None = None
        self._under_way: dict[str, Call] = {}
        self._threads = ThreadPoolExecutor(_MOST_CALLS, thread_name_prefix="call")

    def take(self, request: messages.Request) -> None:
        """Answer a request, or begin with it."""
        if isinstance(request, _Long):
            progress = _Progress(request.id, self._replies)
            fresh = isinstance(request, messages.Call) and request.fresh
            call = self._under_way[request.id] = Call(on_progress=progress, fresh=fresh)
            self._threads.submit(self._run, request, call, progress)
            return
        self._replies.send(_frame(request.id, lambda: self._do(request)))
        if isinstance(request, messages.Shutdown):
            _leave(0)

    def _do(self, request: messages.Request) -> Mapping[str, Any]:
        if isinstance(request, messages.Hello):
            if self._served is not None:
                raise BadRequest("hello was already said")
            self._served = load(self._root, request.config)
            return self._served.describe()
        if isinstance(request, messages.Cancel) and request.call in self._under_way:
            self._under_way[request.call].cancelled.set()
        return {}

    def _run(self, request: _Long, call: Call, progress: _Progress) -> None:
        with during(call):
            frame = _frame(request.id, lambda: self._experiment(request))
        del self._under_way[request.id]
        # The answer is the last that is heard of a request.
        progress.end()
        self._replies.send(frame)

    def _experiment(self, request: _Long) -> Mapping[str, Any]:
        if self._served is None:
            raise BadRequest("hello must come first")
        if isinstance(request, messages.Digest):
            return self._served.digest()
        return self._served.call(request) if isinstance(request, messages.Call) else self._served.self_test()


class _Progress:
    """Tells the host how far a request is, not too often and never behind its answer."""

    def __init__(self, request: str, replies: _Replies) -> None:
        self._request = request
        self._replies = replies
        self._lock = threading.Lock()
        self._next = 0.0
        self._ended = False

    def __call__(self, done: int, total: int, what: str) -> None:
        """Send a message unless the last one was sent a moment ago."""
        with self._lock:
            now = time.monotonic()
            if self._ended or now < self._next:
                return
            self._next = now + messages.PROGRESS_SECONDS
            words = "".join(one if one.isprintable() else " " for one in what[: messages.PROGRESS_WORDS])
            progress = {"done": max(0, min(int(done), int(total))), "total": max(0, int(total)), "what": words}
            self._replies.send(wire.encode_frame({"id": self._request, "progress": progress}))

    def end(self) -> None:
        """Send nothing from now on."""
        with self._lock:
            self._ended = True


def _frame(request: str, answer: Callable[[], Mapping[str, Any]]) -> bytes:
    """The whole frame that answers a request; never raises for what a tool or a model does."""
    try:
        body = wire.encode_body({"id": request, "ok": answer()})
        if len(body) > wire.MAX_FRAME_BYTES:
            raise TooLarge(f"the result takes {len(body)} bytes; the limit is {wire.MAX_FRAME_BYTES}")
        return wire.frame(body)
    except BaseException as error:  # a tool that calls sys.exit() ends its call, not the worker
        code, message = describe_fault(error)
        return wire.encode_frame({"id": request, "error": {"code": code, "message": message}})


if __name__ == "__main__":
    main(sys.argv[1])
