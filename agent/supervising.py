"""A run obeys what is asked of it from outside (``marple.traces.control``): it waits, goes on, or is cancelled.

Every node of the loop stands by before it begins. A cancel is looked for all the time: what is under way is dropped, an
own worker is closed, a shared one is only told to forget the call. A member of an ensemble obeys what is asked of the
ensemble, too.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import glob
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any, TypeVar

from marple.agent.finishing import usage_of
from marple.errors import TraceError, UsageError
from marple.tasks.outcome import outcome
from marple.traces import Event, RunFolder
from marple.traces.control import Request, latest
from marple.traces.documents import read_spec

__all__ = [
    "CANCELLED",
    "LOOK_SECONDS",
    "Stopped",
    "cancel_interrupted",
    "finish_cancelled",
    "pauses_noted",
    "stand_by",
    "unless_cancelled",
]

LOOK_SECONDS = 0.2
"""Time between two looks at what is wanted."""

CANCELLED = outcome("cancelled")

_T = TypeVar("_T")


class Stopped(Exception):
    """The process was asked to stop while the run waited; the step that was to begin has not begun."""


async def stand_by(folder: RunFolder, stopping: Callable[[], bool]) -> None:
    """Wait for as long as the run is to be paused; the waiting is recorded and not counted as its time.

    Args:
        folder: the run's, open for writing.
        stopping: whether the process was asked to stop.

    Raises:
        Stopped: it was, meanwhile.
    """
    asked = _asked(folder.path)
    if asked is None or asked.wanted == "go":
        return
    if asked.wanted == "pause":
        _note(folder, "pause", asked)
    # A cancel ends the waiting from outside.
    while (asked := _asked(folder.path)) is not None and asked.wanted != "go":
        if stopping():
            raise Stopped
        await asyncio.sleep(LOOK_SECONDS)
    _note(folder, "go", asked, idle=True)


@contextlib.asynccontextmanager
async def pauses_noted(folder: RunFolder, stopping: Callable[[], bool]) -> AsyncIterator[None]:
    """While others play for a run, and wait themselves: record its pauses, which are not counted as its time."""

    async def note() -> None:
        with contextlib.suppress(Stopped):
            while True:
                await stand_by(folder, stopping)
                await asyncio.sleep(LOOK_SECONDS)

    noting = asyncio.ensure_future(note())
    try:
        yield
    finally:
        await _end(noting)


async def unless_cancelled(folder: RunFolder, work: Coroutine[Any, Any, _T]) -> _T | None:
    """Await ``work``; None where the run was cancelled first, and then all of it has ended.

    Raises:
        Exception: what ``work`` raises; what it raises while it is being cancelled is recorded instead.
    """
    working = asyncio.ensure_future(work)
    asking = asyncio.ensure_future(_until_cancel_is_asked(folder.path))
    try:
        await asyncio.wait({working, asking}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        await _end(working)
        return _result_or_none(folder, working)
    finally:
        await _end(asking)
        await _end(working)


def finish_cancelled(folder: RunFolder, *, idle: bool = False) -> dict[str, Any]:
    """Write the end of a cancelled run and return ``result.json``: no score, and no truth, which only a score shows.

    The members of an ensemble that are not through are finished as cancelled, too.

    Args:
        folder: the run's, open for writing.
        idle: whether nobody played it since its last event.
    """
    if not folder.events():
        names = ("case", "investigator", "model", "seed")
        folder.append("run_start", {**{name: folder.spec.get(name) for name in names}, "brief": "", "sandbox": {}})
    events = folder.events()
    dropped = _under_way(events)
    _note(folder, "cancel", _asked(folder.path), idle=idle or _is_paused(events), under_way=dropped)
    usage = usage_of(folder.events())
    for kind, payload in (("score", {"scored": False}), ("run_end", {"status": CANCELLED, "usage": usage})):
        if not any(event.type == kind for event in events):
            folder.append(kind, payload)
    for member in _members(folder):
        with contextlib.suppress(TraceError, UsageError):
            cancel_interrupted(member)
    result = _result(folder, usage)
    folder.write_result(result)
    return result


def _members(folder: RunFolder) -> list[Path]:
    """The runs of an ensemble's members, as far as they were begun."""
    found = folder.path.parent.glob(f"{glob.escape(folder.run_id)}-m*") if folder.spec.get("ensemble") else ()
    return sorted(path for path in found if _whole_of(path) == folder.path)


def cancel_interrupted(path: Path) -> dict[str, Any]:
    """Finish a run that no process plays as cancelled; its result.

    Raises:
        UsageError: a process plays it after all, and will obey.
        CorruptTraceError: the folder cannot be read.
    """
    with RunFolder.reopen(path) as folder:
        done = folder.result
        return finish_cancelled(folder, idle=True) if done is None else done


def _result(folder: RunFolder, usage: dict[str, Any]) -> dict[str, Any]:
    spec, events = folder.spec, folder.events()
    answers = [event.payload.get("answer") for event in events if event.type == "answer"]
    names = ("case", "kind", "comparability", "investigator", "model", "seed")
    return {
        "run_id": folder.run_id,
        **{name: spec.get(name) for name in names},
        "status": CANCELLED,
        "answer": answers[-1] if answers else None,
        "truth": None,
        "scores": {"scored": False},
        "usage": usage,
        "measured": {},
        "sandbox": events[0].payload.get("sandbox", {}).get("stamp", {}),
    }


def _note(folder: RunFolder, did: str, asked: Request | None, *, idle: bool = False, **more: Any) -> None:
    who = {"by": asked and asked.by, "asked": asked and asked.ts}
    folder.append("control", {"did": did, **who, "idle": idle, **more}, role="human")


def _asked(path: Path) -> Request | None:
    """What counts of what is asked of a run and of the ensemble that it is a member of."""
    whole = _whole_of(path)
    said = [_latest(path), None if whole is None else _latest(whole)]
    weight = {"cancel": 2, "pause": 1, "go": 0}
    return max((one for one in said if one is not None), key=lambda one: weight[one.wanted], default=None)


def _latest(path: Path) -> Request | None:
    try:
        return latest(path)
    except TraceError:
        return None  # what cannot be read was not asked for; the run goes on


@functools.lru_cache(maxsize=1024)
def _whole_of(path: Path) -> Path | None:
    """The folder of the ensemble that a run is a member of."""
    try:
        part_of = read_spec(path).get("part_of")
    except TraceError:
        return None
    name = part_of.get("ensemble") if isinstance(part_of, dict) else None
    return path.parent / Path(name).name if isinstance(name, str) and name else None


def _is_to_be_cancelled(path: Path) -> bool:
    asked = _asked(path)
    return asked is not None and asked.wanted == "cancel"


async def _until_cancel_is_asked(path: Path) -> None:
    while not _is_to_be_cancelled(path):
        await asyncio.sleep(LOOK_SECONDS)


async def _end(task: asyncio.Future[Any]) -> None:
    if not task.done():
        task.cancel()
        await asyncio.wait({task})


def _result_or_none(folder: RunFolder, working: asyncio.Future[_T]) -> _T | None:
    """What the work had come to when it was cancelled, if it had come to its end."""
    with contextlib.suppress(asyncio.CancelledError):
        error = working.exception()
        if error is None:
            return working.result()
        if not isinstance(error, Exception):
            raise error
        if folder.events():
            folder.append("error", {"where": "cancel", "kind": type(error).__name__, "message": str(error)})
    return None


def _is_paused(events: Sequence[Event]) -> bool:
    return events[-1].type == "control" and events[-1].payload.get("did") == "pause"


def _under_way(events: Sequence[Event]) -> list[str]:
    """The calls that were begun since the run was last gone on with, and have no result."""
    done = {event.parent for event in events if event.type in ("tool_call", "model_call")}
    resumed = max((at for at, event in enumerate(events) if event.type == "run_resume"), default=0)
    return [event.id for event in events[resumed:] if event.type == "call_start" and event.id not in done]
