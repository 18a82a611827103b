"""The warden of one call: it starts the process that runs the code, and ends everything that one has started.

A process between the supervisor and the code. It is the reaper of all orphans below it, and it stands in a Landlock
domain of its own that holds it and all of them, and nothing else: so a signal to every process reaches exactly the
processes of the call, whatever they have done to detach themselves. The code stands in a further domain inside that one
and can reach neither the warden nor the supervisor.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from marple.tools.code.confinement import Confinement, Unconfined, is_out_of_reach
from marple.tools.code.wiping import wipe

__all__ = ["END", "FREEZE", "THAW", "die_with_parent", "watch_over"]

END = signal.SIGTERM
"""To a warden: end the call."""
FREEZE = signal.SIGUSR1
"""To a warden: stop every process of the call."""
THAW = signal.SIGUSR2
"""To a warden: let them go on."""

_LISTENS_TO = (signal.SIGCHLD, END, FREEZE, THAW)
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_DUMPABLE = 4
_LIBC = ctypes.CDLL(None, use_errno=True)


def watch_over(
    run: Callable[[], NoReturn],
    *,
    supervisor: int,
    confinement: Confinement,
    workplace: Path,
    report: int,
    keep: tuple[int, ...],
) -> NoReturn:
    """Be the warden of a call; for a process that was just forked, and never returns.

    Args:
        run: what the process of the code does; it confines itself further.
        supervisor: its process id.
        confinement: applied here and, a second time, by ``run``.
        workplace: the call's directory, emptied in the end.
        report: descriptor of a pipe to the supervisor: one JSON object a line, ``{"ended": wait status}`` when no
            process of the call is left, or ``{"unconfined": reason}``.
        keep: descriptors of the code's process; all others are closed.
    """
    status = 1
    try:
        _prepare(supervisor, {report, *keep})
        status = _watch(run, supervisor, confinement, workplace, report, keep)
    except Unconfined as error:
        _say(report, {"unconfined": str(error)})
    except BaseException:
        traceback.print_exc()
    finally:
        _leave(status)


def die_with_parent(parent: int, signal_: int = signal.SIGKILL) -> None:
    """Have the kernel send this process a signal when its parent ends; end now if it has ended already."""
    if sys.platform == "linux":
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(signal_), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(0)


def _prepare(supervisor: int, keep: set[int]) -> None:
    # Blocked signals wait until they are asked for, so none is lost and none interrupts anything.
    signal.pthread_sigmask(signal.SIG_BLOCK, _LISTENS_TO)
    os.setsid()
    die_with_parent(supervisor, END)
    if _LIBC.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise Unconfined("the kernel does not let a process take over the orphans below it")
    _LIBC.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
    start = 3
    for descriptor in sorted(keep):
        os.closerange(start, descriptor)
        start = descriptor + 1
    os.closerange(start, os.sysconf("SC_OPEN_MAX"))


def _watch(
    run: Callable[[], NoReturn],
    supervisor: int,
    confinement: Confinement,
    workplace: Path,
    report: int,
    keep: tuple[int, ...],
) -> int:
    confinement.enter(workplace)
    # Not only asked for: without it, the signal that ends the call would reach every process there is.
    if not is_out_of_reach(supervisor):
        raise Unconfined("the kernel accepts a Landlock scope for signals and does not keep to it")
    child = os.fork()
    if child == 0:
        try:
            os.close(report)
            run()
        finally:
            os._exit(72)
    for descriptor in keep:
        os.close(descriptor)
    ended = _wait_for(child)
    wipe(workplace)
    _say(report, {"ended": ended})
    return 0


def _wait_for(child: int) -> int:
    """The wait status of the code's process, once neither it nor anything it has started is left."""
    ended: int | None = None
    while ended is None:
        heard = signal.sigwait(_LISTENS_TO)
        if heard == END:
            break
        if heard in (FREEZE, THAW):
            _signal_all(signal.SIGSTOP if heard == FREEZE else signal.SIGCONT)
        ended = _reap(child, os.WNOHANG)
    while True:
        _signal_all(signal.SIGKILL)
        try:
            pid, status = os.waitpid(-1, 0)
        except ChildProcessError:
            return 0 if ended is None else ended
        if pid == child:
            ended = status


def _reap(child: int, options: int) -> int | None:
    """Collect who has ended by now; the status of the code's process, if it has."""
    ended = None
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, options))[0]:
            if found[0] == child:
                ended = found[1]
    return ended


def _signal_all(number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(-1, number)


def _say(report: int, value: dict[str, Any]) -> None:
    os.write(report, json.dumps(value).encode() + b"\n")


def _leave(status: int) -> NoReturn:
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(status)
