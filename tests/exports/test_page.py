"""The one-file page: whole without a server, and nothing that a trace says acts in it."""

from __future__ import annotations

import re
from html.parser import HTMLParser

from marple.traces.exports.page import page
from tests.exports.conftest import HOSTILE, Make


class _Reader(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id" and value:
                self.ids.add(value)
            if name in ("src", "href", "action"):
                self.addresses.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)


def test_it_shows_the_verdict_and_every_event_with_its_body(make: Make) -> None:
    text = page(make())
    read = _Reader(text)
    assert {f"E{number}" for number in range(1, 9)} <= read.ids
    assert "replicated" in text
    assert text.count('<div class="body">') == 8
    assert "it says velora" in text


def test_every_address_is_within_the_file(make: Make) -> None:
    read = _Reader(page(make()))
    assert any(address.startswith("data:image/png;base64,") for address in read.addresses)
    inside = {address.removeprefix("#") for address in read.addresses if address.startswith("#")}
    assert "E4" in inside
    assert inside <= read.ids
    assert all(address.startswith(("#", "data:")) for address in read.addresses)
    assert not {"form", "script", "link", "button"} & set(read.tags)


def test_hostile_text_is_there_and_does_nothing(make: Make) -> None:
    text = page(make(text=HOSTILE))
    read = _Reader(text)
    assert "script" not in read.tags
    assert not read.handlers
    assert "alert(1)" in text
    assert not re.search("[\x1b\x07\u202e\U000e0041]", text)


def test_a_run_that_is_not_done_and_lost_a_plot_is_still_written(make: Make) -> None:
    run = make()
    (run.path / "result.json").unlink()
    for blob in (run.path / "blobs").iterdir():
        blob.unlink()
    text = page(run)
    assert 'id="E8"' in text
    assert "base64" not in text
