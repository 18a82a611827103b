"""Labels and comments: written from a page, and exported."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from marple.errors import MarpleError, UsageError
from marple.traces.labels import add_label, read_labels, remove_label
from marple.traces.review.pages import failure

__all__ = ["add", "export", "remove"]

_COLUMNS = ("run", "case", "arm", "model", "outcome", "verdict", "event", "label", "comment", "by", "ts", "id")


async def add(request: Request) -> Response:
    """Write what a form says about a run or one of its events."""
    form = await request.form()
    event = str(form.get("event") or "")
    comment = str(form.get("comment") or "")
    name = request.path_params["run"]
    path = request.app.state.shelf.path(name)
    try:
        if path is None:
            raise UsageError(f"the run {name} is gone; nothing was written")
        said = {"label": str(form.get("label") or ""), "comment": comment, "by": str(form.get("by") or "")}
        await run_in_threadpool(add_label, path, event=event or None, **said)
    except MarpleError as error:
        # The reader's words must not be lost with the page that they were typed into.
        return failure(request, 409, "This was not kept", str(error), kept=comment)
    return RedirectResponse(f"/run/{name}" + (f"#{event}" if event else "#notes"), 303)


async def remove(request: Request) -> Response:
    """Take one back."""
    name = request.path_params["run"]
    path = request.app.state.shelf.path(name)
    try:
        if path is None:
            raise UsageError(f"the run {name} is gone")
        await run_in_threadpool(remove_label, path, request.path_params["label"])
    except MarpleError as error:
        return failure(request, 409, "Not possible", str(error))
    return RedirectResponse(f"/run/{name}#notes", 303)


def export(request: Request) -> Response:
    """All labels and comments of all runs, as JSON lines or CSV."""
    form = request.path_params["form"]
    if form not in ("csv", "jsonl"):
        return failure(request, 404, "No such export", f"There are labels.csv and labels.jsonl, not labels.{form}.")
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, _COLUMNS)
        writer.writeheader()
        writer.writerows({key: _cell(value) for key, value in row.items()} for row in _labels(request))
        body, media_type = text.getvalue(), "text/csv"
    else:
        body = "".join(json.dumps(row) + "\n" for row in _labels(request))
        media_type = "application/jsonl"
    headers = {"content-disposition": f'attachment; filename="labels.{form}"'}
    return Response(body.encode(errors="replace"), media_type=media_type, headers=headers)


def _labels(request: Request) -> Iterator[dict[str, Any]]:
    for entry in request.app.state.index.entries():
        facts = {key: getattr(entry, key) for key in ("case", "arm", "model", "outcome", "verdict")}
        for label in read_labels(request.app.state.shelf.root / entry.name):
            yield {"run": entry.name, **facts, **label.to_dict()}


def _cell(value: Any) -> Any:
    # A spreadsheet would compute a cell that begins like this.
    return f"'{value}" if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r") else value
