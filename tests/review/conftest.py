"""A real server and a real browser for the review app."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Dialog, Page, expect, sync_playwright

from marple.traces.review.serving import Server

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
DESKTOP, PHONE = (1280, 900), (390, 844)

Open = Callable[..., Page]

# On a machine that runs many tests at once.
expect.set_options(timeout=20_000)


@contextmanager
def serving(runs: Path, **options: object) -> Iterator[Server]:
    """The review app over a folder, in a thread."""
    server = Server(runs, port=0, **options)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve, name="review")
    thread.start()
    try:
        yield server
    finally:
        server.stop()
        thread.join(timeout=20)
        assert not thread.is_alive(), "the server did not end"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    # Closed with the module: while it is open, this thread counts as running an event loop.
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def look(browser: Browser) -> Iterator[Open]:
    """Opens pages, and fails the test where one of them did what no page may do.

    That is: an error or a warning of the browser's, a dialog, a breach of the content policy, a request elsewhere.
    """
    contexts: list[BrowserContext] = []
    wrong: list[str] = []

    def refuse(dialog: Dialog) -> None:
        wrong.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def open_page(url: str, *, size: tuple[int, int] = DESKTOP, scheme: str = "light", scripts: bool = True) -> Page:
        made = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            color_scheme=scheme,  # type: ignore[arg-type]
            java_script_enabled=scripts,
        )
        contexts.append(made)
        page = made.new_page()
        page.set_default_timeout(30_000)
        page.on("console", lambda m: wrong.append(f"console {m.type}: {m.text}") if m.type != "log" else None)
        page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
        page.on("dialog", refuse)
        origin = "/".join(url.split("/")[:3])
        page.on("request", lambda r: None if r.url.startswith(origin) else wrong.append(f"request: {r.url}"))
        page.add_init_script(
            "addEventListener('securitypolicyviolation', e => console.error('policy', e.violatedDirective))"
        )
        page.goto(url)
        return page

    yield open_page
    for made in contexts:
        made.close()
    assert wrong == []
