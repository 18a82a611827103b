"""The review app: pages over a runs folder, made on this machine and for it alone."""

from __future__ import annotations

import contextlib
import secrets
import threading
from collections.abc import AsyncIterator, Collection
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from marple.errors import MarpleError
from marple.traces.index import RunIndex
from marple.traces.review import comparing, following, list_page, matrix, noting, run_page
from marple.traces.review.guard import Guard
from marple.traces.review.opened import RunShelf
from marple.traces.review.pages import STATIC, failure, prepare

__all__ = ["create_app"]

_LARGEST_FORM = 256 * 1024


def create_app(runs: Path, *, hosts: Collection[str] = ("127.0.0.1", "localhost", "::1"), key: str = "") -> Starlette:
    """The app over a runs folder, or over the output of an evaluation.

    Args:
        runs: a folder of run folders, or one that holds ``evaluation.json`` and ``runs/``.
        hosts: names under which the server may be asked for; empty for any.
        key: what a browser must show; '' for nothing.
    """
    evaluation = runs if (runs / matrix.DOCUMENT).exists() else None
    root = runs / "runs" if evaluation else runs
    app = Starlette(
        routes=[*_pages(), Mount("/static", StaticFiles(directory=STATIC))],
        middleware=[Middleware(Guard, hosts=hosts, key=key), Middleware(_Changes)],
        exception_handlers={404: _not_found, MarpleError: _failed},
        lifespan=_lifespan,
    )
    app.state.shelf = RunShelf(root)
    app.state.index = RunIndex(root)
    app.state.evaluation = evaluation
    app.state.token = secrets.token_urlsafe(24)
    app.state.closing = threading.Event()
    return app


def _pages() -> list[Route]:
    event = "{event:str}"
    return [
        Route("/", list_page.list_page),
        Route("/runs.json", list_page.runs_json),
        Route("/search", list_page.search_page),
        Route("/compare", comparing.compare_page),
        Route("/evaluation", matrix.matrix_page),
        Route("/labels.{form}", noting.export),
        Route("/run/{run}", run_page.run_page),
        Route("/run/{run}/head", run_page.head_part),
        Route("/run/{run}/events", run_page.events_part),
        Route("/run/{run}/stream", following.stream),
        Route("/run/{run}/blob/{digest}", run_page.blob),
        Route("/run/{run}/control", following.control, methods=["POST"]),
        Route("/run/{run}/labels", noting.add, methods=["POST"]),
        Route("/run/{run}/labels/{label}/remove", noting.remove, methods=["POST"]),
        Route(f"/run/{{run}}/{event}", run_page.event_page),
        Route(f"/run/{{run}}/{event}/body", run_page.event_body),
        Route(f"/run/{{run}}/{event}/raw", run_page.event_raw),
    ]


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    """Take in the text of runs beside serving them."""
    reader = threading.Thread(target=_read_texts, args=(app,), name="index", daemon=True)
    reader.start()
    try:
        yield
    finally:
        app.state.closing.set()
        reader.join(timeout=5)
        app.state.index.close()


def _read_texts(app: Starlette) -> None:
    index: RunIndex = app.state.index
    prepare()
    while not app.state.closing.is_set():
        with contextlib.suppress(MarpleError):
            index.entries()
        while not app.state.closing.is_set() and index.read_next():
            pass
        app.state.closing.wait(2.0)


class _Changes:
    """Refuses a change without the page's token, and a form that is too large."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse, or pass on."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD"):
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > _LARGEST_FORM:
                answer = failure(request, 413, "Too much", f"A comment may have at most {_LARGEST_FORM // 1024} KiB.")
                await answer(scope, receive, send)
                return
        if not await _has_token(request, body):
            answer = failure(
                request,
                403,
                "This page is from an earlier start",
                "Its token is not the one of the server that runs now: load the page again, then repeat what you did.",
                kept=await _comment(request, body),
            )
            await answer(scope, receive, send)
            return
        await self._app(scope, _replay(body), send)


def _replay(body: bytes) -> Receive:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    return receive


async def _has_token(request: Request, body: bytes) -> bool:
    form = await Request(request.scope, _replay(body)).form()
    return secrets.compare_digest(str(form.get("token") or "").encode(), request.app.state.token.encode())


async def _comment(request: Request, body: bytes) -> str:
    form = await Request(request.scope, _replay(body)).form()
    return str(form.get("comment") or "")


async def _not_found(request: Request, error: Exception) -> Response:
    return failure(request, 404, "No such page", f"There is nothing at {request.url.path}.")


async def _failed(request: Request, error: Exception) -> Response:
    return failure(request, 500, "This did not work", str(error))
