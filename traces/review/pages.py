"""Templates, and the answers made of them."""

from __future__ import annotations

import functools
import time
from pathlib import Path
from typing import Any
from urllib.parse import quote

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from starlette.requests import Request
from starlette.responses import HTMLResponse

from marple.traces.review.chart_shapes import shape
from marple.traces.review.shown import cut, marked_up, shown

__all__ = ["STATIC", "failure", "fragment", "page", "prepare"]

_HERE = Path(__file__).parent
STATIC = _HERE / "static"


def page(request: Request, template: str, *, code: int = 200, **values: Any) -> HTMLResponse:
    """A page from a template; what every page needs is given to it."""
    state = request.app.state
    shared = {
        "token": state.token,
        "evaluation": state.evaluation is not None,
        "root": str(state.shelf.root),
        "path": request.url.path,
        "now": time.time(),
    }
    return HTMLResponse(fragment(template, **shared, **values), status_code=code)


def fragment(template: str, **values: Any) -> str:
    """A template's text."""
    return _templates().get_template(template).render(**values)


def prepare() -> None:
    """Read all templates, so that the first page need not wait for it."""
    for name in _templates().list_templates():
        _templates().get_template(name)


def failure(request: Request, status: int, title: str, message: str, *, kept: str = "") -> HTMLResponse:
    """A page that says what went wrong; ``kept`` is text of the reader's that must not be lost."""
    return page(request, "failure.html", code=status, title=title, message=message, kept=kept)


@functools.cache
def _templates() -> Environment:
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        finalize=_safe,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "said": marked_up,
        "cut": cut,
        "when": _when,
        "day": _day,
        "ago": _ago,
        "span": _span,
        "num": _num,
        "big": _big,
        "money": _money,
        "url": lambda value: quote(str(value).encode(errors="replace"), safe=""),
        "pct": lambda value: "–" if value is None else f"{100 * value:.0f} %",
    }
    made.globals |= {"asset_version": _asset_version(), "shape": shape}
    return made


def _asset_version() -> str:
    newest = max((file.stat().st_mtime_ns for file in STATIC.iterdir()), default=0)
    return f"{newest:x}"


def _safe(value: Any) -> Any:
    # Everything that a template puts out passes here: no text acts, whether it stands in an element or an attribute.
    if isinstance(value, Markup):
        return value
    return escape(shown("" if value is None else value))


def _when(seconds: float | None) -> str:
    if seconds is None or not 0 <= seconds < 4e9:
        return "–"
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _day(seconds: float | None) -> str:
    if seconds is None or not 0 <= seconds < 4e9:
        return "–"
    then, now = time.localtime(seconds), time.localtime()
    return time.strftime("%d %b %H:%M" if then.tm_year == now.tm_year else "%d %b %Y", then)


def _ago(seconds: float | None) -> str:
    return "–" if seconds is None else _span(max(0.0, seconds))


def _span(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    if seconds < 10:
        return f"{seconds:.1f} s" if seconds >= 0.05 else f"{1000 * seconds:.0f} ms"
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _num(value: Any, digits: int = 2, sign: bool = False) -> str:
    if value is None:
        return "–"
    return f"{value:{'+' if sign else ''}.{digits}f}"


def _big(value: Any) -> str:
    return "–" if value is None else f"{value:,}"


def _money(value: float | None) -> str:
    if value is None:
        return "price unknown"
    return f"${value:.2f}" if value >= 0.005 or value == 0 else f"${value:.4f}"
