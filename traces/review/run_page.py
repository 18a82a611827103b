"""A run's page, and the pieces of it that a browser asks for one by one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response

from marple.errors import TraceError
from marple.traces.event import Event
from marple.traces.labels import LABELS
from marple.traces.review.calibration import calibration
from marple.traces.review.costs import spent_by_role, spent_by_tool
from marple.traces.review.ensemble import ensemble_of, part_of
from marple.traces.review.event_bodies import body
from marple.traces.review.event_rows import event_row, event_rows
from marple.traces.review.fields import mapping, number, of, whole
from marple.traces.review.following import wanted_of
from marple.traces.review.opened import Opened
from marple.traces.review.pages import failure, fragment, page
from marple.traces.review.timeline import timeline
from marple.traces.review.tool_views import argument_rows
from marple.traces.review.trials import trial_blocks
from marple.traces.review.verdict import verdict

__all__ = [
    "CHUNK",
    "blob",
    "event_body",
    "event_page",
    "event_raw",
    "events_part",
    "head_of",
    "head_part",
    "opened",
    "run_page",
]

CHUNK = 100
"""Events that the server sends at a time."""
_PICTURES = {"image/png": b"\x89PNG\r\n\x1a\n"}


def run_page(request: Request) -> Response:
    """The verdict, the picture of the investigation, and the first of the events."""
    run = opened(request)
    if isinstance(run, Response):
        return run
    first = _first(request, run)
    return page(
        request,
        "run.html",
        run=run,
        head=_head(run),
        last=run.events[-1] if run.events else None,
        started=number(run.spec.get("created")),
        isolation=of(run.spec, "isolation", "isolation") or "",
        chunks=_chunks(run, first),
        rows=event_rows(run, run.events[first : first + CHUNK]),
        offered=LABELS,
        notes=[label for label in run.labels if label.event is None],
        by_event=_by_event(run),
        wanted=wanted_of(run.path),
        brief=of(run.events[0].payload, "brief") if run.events else "",
    )


def head_part(request: Request) -> Response:
    """The part above the events again, for a run that is followed."""
    run = opened(request)
    if isinstance(run, Response):
        return run
    return HTMLResponse(_head(run))


def events_part(request: Request) -> Response:
    """Some events of the list."""
    run = opened(request)
    if isinstance(run, Response):
        return run
    start = _whole(request.query_params.get("from"), 1) - 1
    some = run.events[max(0, start) : max(0, start) + CHUNK]
    return HTMLResponse(fragment("_events.html", run=run, rows=event_rows(run, some)))


def event_body(request: Request) -> Response:
    """What an event shows when it is opened."""
    run, event = _event(request)
    if isinstance(run, Response):
        return run
    assert event is not None
    return HTMLResponse(fragment("_body.html", **_shown(run, event), token=request.app.state.token))


def event_page(request: Request) -> Response:
    """One event on a page of its own."""
    run, event = _event(request)
    if isinstance(run, Response):
        return run
    assert event is not None
    at = run.events.index(event)
    return page(
        request,
        "event.html",
        **_shown(run, event),
        before=run.events[at - 1].id if at else "",
        after=run.events[at + 1].id if at + 1 < len(run.events) else "",
    )


def event_raw(request: Request) -> Response:
    """An event as the log has it."""
    run, event = _event(request)
    if isinstance(run, Response):
        return run
    text = json.dumps(vars(event), indent=1)
    headers = {"content-disposition": f'attachment; filename="{event.id if event else ""}.json"'}
    return PlainTextResponse(text, headers=headers, media_type="application/json")


def blob(request: Request) -> Response:
    """A plot, to be shown; anything else, to be saved."""
    run = opened(request)
    if isinstance(run, Response):
        return run
    digest = request.path_params["digest"]
    try:
        data = run.blobs.get(f"sha256:{digest}")
        media_type = run.blobs.media_type(f"sha256:{digest}")
    except TraceError as error:
        return PlainTextResponse(f"{error}\n", 404)
    begins = _PICTURES.get(media_type)
    if begins and data.startswith(begins):
        return Response(data, media_type=media_type, headers={"cache-control": "private, max-age=86400, immutable"})
    headers = {"content-disposition": f'attachment; filename="{digest[:16]}"'}
    return Response(data, media_type="application/octet-stream", headers=headers)


def opened(request: Request) -> Opened | Response:
    """The run that a path names, or the page that says why it cannot be shown."""
    name = request.path_params["run"]
    try:
        run: Opened | None = request.app.state.shelf.open(name)
    except TraceError as error:
        return failure(request, 422, "This run cannot be read", str(error))
    if run is None:
        message = f"There is no run {name} in {request.app.state.shelf.root}; it may have been moved or deleted."
        return failure(request, 404, "No such run", message)
    return run


def _event(request: Request) -> tuple[Opened | Response, Event | None]:
    run = opened(request)
    if isinstance(run, Response):
        return run, None
    event = run.by_id.get(request.path_params["event"])
    if event is None:
        wanted = request.path_params["event"]
        message = f"The run {run.name} has no event {wanted}; it has {len(run.events)}."
        return failure(request, 404, "No such event", message), None
    return run, event


def head_of(run: Opened) -> dict[str, Any]:
    """What `_head.html` shows: everything above the events."""
    last = run.events[-1] if run.events else None
    made = verdict(run)
    return {
        "run": run,
        "verdict": made,
        "tried": trial_blocks(run),
        "handed_in": argument_rows(made.other),
        "ensemble": ensemble_of(run),
        "member_of": part_of(run),
        "picture": timeline(run),
        "calibrations": calibration(run),
        "roles": spent_by_role(run),
        "tools": spent_by_tool(run),
        "last": last,
        "usage": _usage(mapping(of(run.result, "usage"))),
        "started": number(run.spec.get("created")),
        "isolation": of(run.spec, "isolation", "isolation") or "",
    }


def _head(run: Opened) -> Markup:
    """The same drawn; kept, since a long run takes a while to sum up."""
    if "head" not in run.memo:
        run.memo["head"] = Markup(fragment("_head.html", **head_of(run)))
    return Markup(run.memo["head"])


def _usage(said: Mapping[str, Any]) -> dict[str, Any]:
    if not said:
        return {}
    counts = {name: whole(said.get(name)) for name in ("turns", "calls", "target_tokens")}
    return {
        **counts,
        "seconds": number(said.get("seconds")),
        "cost": number(of(said, "investigator", "cost_usd")),
    }


def _shown(run: Opened, event: Event) -> dict[str, Any]:
    return {
        "run": run,
        "event": event,
        "row": event_row(event),
        "labels": [label for label in run.labels if label.event == event.id],
        "offered": LABELS,
        **body(run, event),
    }


def _first(request: Request, run: Opened) -> int:
    """Where the events begin that are sent with the page."""
    wanted = max(0, _whole(request.query_params.get("from"), 1) - 1)
    return min(wanted, max(0, len(run.events) - 1)) // CHUNK * CHUNK


def _chunks(run: Opened, first: int) -> Sequence[tuple[int, int, bool]]:
    """The stretches of the list: first and last event, and whether it is sent with the page."""
    starts = range(0, max(1, len(run.events)), CHUNK)
    return [(at + 1, min(at + CHUNK, len(run.events)), at == first) for at in starts]


def _by_event(run: Opened) -> list[Any]:
    return [label for label in run.labels if label.event is not None]


def _whole(value: str | None, default: int) -> int:
    return int(value) if value and value.isascii() and value.isdigit() and len(value) < 10 else default
