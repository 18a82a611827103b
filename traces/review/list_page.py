"""The list of runs: filtered, sorted, and searched."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from marple.traces.index import Entry, Hit, RunIndex
from marple.traces.review.pages import fragment, page

__all__ = ["list_page", "runs_json", "search_page"]

_MOST = 1_500
_FILTERS = ("kind", "case", "arm", "model", "status", "verdict", "label")
_HITS = 4
"""Events shown of each run that a search finds."""

_SORTS: Mapping[str, Callable[[Entry], Any]] = {
    "date": lambda entry: entry.started,
    "case": lambda entry: entry.case,
    "arm": lambda entry: entry.arm,
    "model": lambda entry: entry.model,
    "status": lambda entry: status_of(entry),
    "verdict": lambda entry: entry.verdict or None,
    "brier": lambda entry: entry.brier,
    "skill": lambda entry: entry.skill,
    "claims": lambda entry: entry.replicated / entry.claims if entry.claims and entry.replicated is not None else None,
    "cost": lambda entry: entry.cost,
    "tokens": lambda entry: entry.target_tokens,
    "seconds": lambda entry: entry.seconds,
}
_DOWN_FIRST = frozenset({"date", "skill", "claims", "cost", "tokens", "seconds"})


def status_of(entry: Entry) -> str:
    """How a run ended, or what it does now."""
    return entry.outcome or entry.state


def list_page(request: Request) -> Response:
    """All runs that fit the filters."""
    index: RunIndex = request.app.state.index
    entries = index.entries()
    chosen = {name: request.query_params.get(name, "") for name in _FILTERS}
    found = [entry for entry in entries if _fits(entry, chosen)]
    sort, down = _sorting(request)
    return page(
        request,
        "list.html",
        entries=_sorted(found, sort, down)[:_MOST],
        found=len(found),
        total=len(entries),
        running=sum(entry.state == "running" for entry in entries),
        paused=sum(entry.state == "paused" for entry in entries),
        choices=_choices(entries),
        chosen=chosen,
        filtered=any(chosen.values()),
        sort=sort,
        down=down,
        links={name: _sort_link(chosen, name, sort, down) for name in _SORTS},
        row_of=_row,
        cut_at=_MOST,
    )


def runs_json(request: Request) -> Response:
    """The same as JSON, for scripts."""
    chosen = {name: request.query_params.get(name, "") for name in _FILTERS}
    entries = [entry for entry in request.app.state.index.entries() if _fits(entry, chosen)]
    return JSONResponse([{**vars(entry), "labels": list(entry.labels)} for entry in entries])


def search_page(request: Request) -> Response:
    """Every run in which something is said."""
    index: RunIndex = request.app.state.index
    query = request.query_params.get("q", "")[:500]
    entries = {entry.name: entry for entry in index.entries()}
    hits = index.search(query) if query.strip() else []
    grouped: dict[str, list[Hit]] = {}
    for hit in hits:
        if hit.run in entries:
            grouped.setdefault(hit.run, []).append(hit)
    order = sorted(grouped, key=lambda name: -(entries[name].started or 0.0))
    groups = [(entries[name], grouped[name][::-1][:_HITS], len(grouped[name])) for name in order]
    return page(
        request,
        "search.html",
        query=query,
        groups=groups[:100],
        runs=len(groups),
        hits=len(hits),
        unread=index.unread(),
        total=len(entries),
        status_of=status_of,
    )


def _row(entry: Entry) -> Markup:
    """The run's line; that of one which stands still is drawn once."""
    if entry.state in ("running", "paused"):
        return _drawn(entry, time.time())
    return _kept_row(entry, time.localtime().tm_year)


@functools.lru_cache(maxsize=5_000)
def _kept_row(entry: Entry, year: int) -> Markup:
    # The year is part of the key, since days of another year are written with it.
    return _drawn(entry, 0.0)


def _drawn(entry: Entry, now: float) -> Markup:
    return Markup(fragment("_run_row.html", run=entry, status=status_of(entry), now=now))


def _fits(entry: Entry, chosen: Mapping[str, str]) -> bool:
    return all(not wanted or wanted in _values(entry, name) for name, wanted in chosen.items())


def _values(entry: Entry, name: str) -> Sequence[str]:
    if name == "label":
        return entry.labels
    value = status_of(entry) if name == "status" else getattr(entry, name)
    return (value,) if value else ()


def _choices(entries: Sequence[Entry]) -> dict[str, list[str]]:
    return {name: sorted({one for entry in entries for one in _values(entry, name)}) for name in _FILTERS}


def _sorting(request: Request) -> tuple[str, bool]:
    sort = request.query_params.get("sort", "date")
    sort = sort if sort in _SORTS else "date"
    return sort, request.query_params.get("down", "1" if sort in _DOWN_FIRST else "0") == "1"


def _sorted(entries: Sequence[Entry], sort: str, down: bool) -> list[Entry]:
    """What has no value comes last, whichever way."""
    key = _SORTS[sort]
    known = sorted((entry for entry in entries if key(entry) is not None), key=key, reverse=down)
    return known + [entry for entry in entries if key(entry) is None]


def _sort_link(chosen: Mapping[str, str], name: str, sort: str, down: bool) -> str:
    turned = not down if name == sort else name in _DOWN_FIRST
    return "/?" + urlencode(
        {**{key: value for key, value in chosen.items() if value}, "sort": name, "down": int(turned)}
    )
