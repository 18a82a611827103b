"""What may talk to the review app, and what a page of it may do.

Pages load nothing from elsewhere and hold no inline script or style, so text of a trace that got through as markup
would still not act. A request must name this server as its host, a change must come from one of its pages, and where
the server can be reached from other machines the browser must have been given the key.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["COOKIE", "POLICY", "Guard"]

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
COOKIE = "marple-view"
_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}


class Guard:
    """ASGI middleware that refuses what did not come from the reader's own browser on one of these pages."""

    def __init__(self, app: ASGIApp, *, hosts: Collection[str], key: str = "") -> None:
        """Guard ``app``.

        Args:
            app: what is guarded.
            hosts: names under which it may be asked for, without a port; empty for any.
            key: what a browser has to show once (``?key=``) and then as a cookie; '' for nothing.
        """
        self._app = app
        self._hosts = frozenset(hosts)
        self._key = key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, refuse, or pass on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        refusal = self._refusal(request)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await (refusal or self._app)(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        host = _host_of(request.headers.get("host", ""))
        if not host or (self._hosts and host not in self._hosts):
            return _no(f"This server is not {host or 'named'}. Open it under the address that it printed.", 421)
        if request.method not in ("GET", "HEAD") and not _same_origin(request):
            return _no("A change must come from one of this server's own pages.", 403)
        if not self._key:
            return None
        given = request.query_params.get("key")
        if given is not None and _equal(given, self._key):
            rest = request.url.remove_query_params("key")
            answer = RedirectResponse(rest.path + (f"?{rest.query}" if rest.query else ""), 303)
            answer.set_cookie(COOKIE, self._key, httponly=True, samesite="strict", path="/")
            return answer
        if not _equal(request.cookies.get(COOKIE, ""), self._key):
            return _no("This server asks for a key: open the address that it printed, with ?key=...", 401)
        return None


def _no(text: str, status: int) -> Response:
    return PlainTextResponse(f"{text}\n", status)


def _equal(given: str, wanted: str) -> bool:
    return hmac.compare_digest(given.encode(), wanted.encode())


def _host_of(header: str) -> str:
    try:
        return (urlsplit(f"//{header}").hostname or "").lower()
    except ValueError:
        return ""


def _same_origin(request: Request) -> bool:
    origin = request.headers.get("origin")
    if origin is None:
        return request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    # Without the scheme: a proxy may have taken TLS off.
    return origin.lower().partition("://")[2] == request.headers.get("host", "").lower()
