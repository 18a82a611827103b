"""A run as one HTML file that needs nothing else: the review page without a server, its plots inside, no script.

It is made of the review app's own pieces, whose links are turned into links within the file.
"""

from __future__ import annotations

import base64
import re
from pathlib import Path
from urllib.parse import quote

from markupsafe import Markup, escape

from marple.errors import CorruptTraceError
from marple.traces.review.event_bodies import body
from marple.traces.review.event_rows import event_row, event_rows
from marple.traces.review.opened import Opened, RunShelf
from marple.traces.review.pages import STATIC, fragment
from marple.traces.review.run_page import head_of
from marple.traces.review.shown import shown
from marple.traces.run_folder import RunFolder

__all__ = ["page"]

_PICTURES = ("image/png", "image/jpeg", "image/svg+xml")
_LABELLING = re.compile(r'<details class="labelling".*?</details>|<p class="meta tools">.*?</p>', re.DOTALL)
_BODY = re.compile(r'<div class="body".*?</div>', re.DOTALL)
"""Of a row, where the review app puts what it asks the server for."""


def page(run: RunFolder) -> str:
    """The file's text.

    Raises:
        CorruptTraceError: the run cannot be read.
    """
    opened = RunShelf(run.path.parent).open(run.path.name)
    if opened is None:
        raise CorruptTraceError(f"{run.path} is not there any more")
    title = " · ".join(str(opened.spec[key]) for key in ("case", "investigator") if opened.spec.get(key))
    head = fragment("_head.html", **head_of(opened))
    events = "".join(_event(opened, number) for number in range(len(opened.events)))
    banners = "".join(f'<p class="banner bad">{escape(shown(problem))}</p>' for problem in opened.problems)
    return _TEMPLATE.format(
        title=escape(shown(title)),
        run=escape(shown(opened.name)),
        css=_css(),
        banners=banners,
        head=_alone(opened, head),
        events=_alone(opened, events),
        count=len(opened.events),
    )


def _event(run: Opened, number: int) -> str:
    """The row of an event with its body inside, closed."""
    event = run.events[number]
    row = fragment("_events.html", run=run, rows=event_rows(run, [event]))
    shown_body = fragment(
        "_body.html", run=run, event=event, row=event_row(event), labels=[], offered=(), token="", **body(run, event)
    )
    return _BODY.sub(lambda _: f'<div class="body">{shown_body}</div>', row, count=1)


def _alone(run: Opened, html: str) -> str:
    """The same without what only a server can answer."""
    base = re.escape(f"/run/{quote(run.name, safe='')}")
    html = _LABELLING.sub("", html)
    html = re.sub(rf' data-body="{base}/[^"]*"', "", html)
    html = re.sub(rf'(src|href)="{base}/blob/([0-9a-f]+)"', lambda m: f'{m[1]}="{_data(run, m[2])}"', html)
    html = re.sub(rf'href="{base}(?:\?[^"#]*)?[/#](E\d+|[a-z]+)"', r'href="#\1"', html)
    return re.sub(r'href="/run/[^"]*"', 'href="#run"', html)


def _data(run: Opened, digest: str) -> str:
    """The blob itself as an address; an empty one where it is missing."""
    data = run.blob(f"sha256:{digest}")
    if data is None:
        return "data:,"
    media_type = run.blobs.media_type(f"sha256:{digest}")
    kind = media_type if media_type in _PICTURES else "text/plain;charset=utf-8"
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _css() -> Markup:
    return Markup((STATIC / "app.css").read_text(encoding="utf-8"))


_TEMPLATE = (Path(__file__).parent / "templates" / "page.html").read_text(encoding="utf-8")
