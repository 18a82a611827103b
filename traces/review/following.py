"""Following a run that is being played: new events as server-sent events, and the requests to hold or end it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response, StreamingResponse

from marple.errors import MarpleError, TraceError
from marple.traces.control import Wanted, wanted
from marple.traces.control import request as ask_for
from marple.traces.review.event_rows import event_rows
from marple.traces.review.pages import failure, fragment

__all__ = ["control", "stream", "wanted_of"]

_PAUSE = 0.5
"""Seconds between two looks at the log."""
_MOST = 200
"""Events in one message."""


async def stream(request: Request) -> Response:
    """The events after ``?after=N`` (or the browser's ``Last-Event-ID``), for as long as the run is played."""
    name = request.path_params["run"]
    if request.app.state.shelf.path(name) is None:
        return PlainTextResponse(f"no run {name}\n", 404)
    seen = request.headers.get("last-event-id") or request.query_params.get("after") or "0"
    after = int(seen) if seen.isascii() and seen.isdigit() and len(seen) < 10 else 0
    return StreamingResponse(_messages(request, name, after), media_type="text/event-stream")


async def _messages(request: Request, name: str, after: int) -> AsyncIterator[str]:
    told = ""
    while not request.app.state.closing.is_set() and not await request.is_disconnected():
        message = await run_in_threadpool(_next, request.app.state.shelf, name, after)
        if message is None:
            yield "event: gone\ndata: {}\n\n"
            return
        after = message.pop("upto")
        state = json.dumps({key: message[key] for key in ("state", "held", "heard", "wanted", "count")})
        if message["rows"]:
            rows = json.dumps({"html": message["rows"], "first": message["first"]})
            yield f"id: {after}\nevent: events\ndata: {rows}\n\n"
        if state != told:
            told = state
            yield f"event: state\ndata: {state}\n\n"
        if message["state"] != "running" and after >= message["count"]:
            return
        await asyncio.sleep(_PAUSE)


def _next(shelf: Any, name: str, after: int) -> dict[str, Any] | None:
    try:
        run = shelf.open(name)
    except TraceError:
        return None
    if run is None:
        return None
    some = run.events[after : after + _MOST]
    return {
        "rows": fragment("_events.html", run=run, rows=event_rows(run, some)) if some else "",
        "first": after + 1,
        "upto": after + len(some),
        "count": len(run.events),
        "state": run.state,
        "held": run.paused,
        "heard": run.events[-1].ts if run.events else None,
        "wanted": wanted_of(run.path),
    }


async def control(request: Request) -> Response:
    """Ask for a pause, for going on, or for the end of a run."""
    name = request.path_params["run"]
    form = await request.form()
    said = form.get("wanted")
    path = request.app.state.shelf.path(name)
    if path is None:
        return failure(request, 404, "No such run", f"There is no run {name}; it may have been deleted.")
    if said not in get_args(Wanted):
        return failure(request, 400, "Unknown request", f"{said!r} is not one of {', '.join(get_args(Wanted))}.")
    try:
        await run_in_threadpool(_ask, path, str(said))
    except MarpleError as error:
        return failure(request, 409, "Not possible", str(error))
    return RedirectResponse(f"/run/{name}", 303)


def _ask(path: Path, said: str) -> None:
    chosen: Wanted = next(one for one in get_args(Wanted) if one == said)
    ask_for(path, chosen, by="marple view")


def wanted_of(path: Path) -> str:
    """What was last asked of a run."""
    try:
        return wanted(path)
    except TraceError:
        return "go"
