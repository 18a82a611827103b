"""The documentation site builds without a warning, and asks nobody else for anything."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from tests.docs.conftest import ROOT, build
from tests.review.conftest import CHROMIUM, DESKTOP, FLAGS, PHONE

PAGES = ["index", "tutorial", "concepts", "extending", "tasks", "security", "reference/cli", "reference/python"]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as started:
        opened = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield opened
        opened.close()


@pytest.fixture
def documents(tmp_path: Path) -> Path:
    """A copy of the documents that a test may spoil."""
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        shutil.copy(ROOT / page, tmp_path)
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    return tmp_path / "docs"


def test_every_document_is_a_page(site: Path) -> None:
    pages = {str(path.relative_to(ROOT / "docs").with_suffix("")) for path in (ROOT / "docs").rglob("*.md")}
    built = {str(path.relative_to(site).with_suffix("")) for path in site.rglob("*.html")}
    assert pages | {"index", "CONTRIBUTING", "CHANGELOG", "reference/cli", "reference/python"} | {"404"} == built


def test_what_makes_the_site_is_not_on_it(site: Path) -> None:
    assert not list(site.rglob("mkdocs.yml"))
    assert not list(site.rglob("hooks.py"))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("[a](nowhere.md)", "nowhere.md"),
        ("[a](tasks.md#no-such-heading)", "no-such-heading"),
        ("![a](images/none.png)", "images/none.png"),
    ],
)
def test_a_broken_link_fails_the_build(documents: Path, tmp_path: Path, text: str, complaint: str) -> None:
    with (documents / "running.md").open("a") as page:
        page.write(f"\n{text}\n")
    done = build(documents, tmp_path / "site")
    assert done.returncode != 0
    assert complaint in done.stderr


def test_a_page_that_is_in_no_menu_fails_the_build(documents: Path, tmp_path: Path) -> None:
    (documents / "forgotten.md").write_text("# Forgotten\n")
    done = build(documents, tmp_path / "site")
    assert done.returncode != 0
    assert "forgotten.md" in done.stderr


class _Loaded(HTMLParser):
    """What a browser fetches by itself for a page."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if given.get("src"):
            self.addresses.append(str(given["src"]))
        if tag == "link" and given.get("rel") not in ("canonical", "prev", "next"):
            self.addresses.append(str(given["href"]))


def test_no_page_loads_anything_from_another_server(site: Path) -> None:
    seen = 0
    for path in site.rglob("*.html"):
        loaded = _Loaded()
        loaded.feed(path.read_text())
        seen += len(loaded.addresses)
        assert [one for one in loaded.addresses if re.match(r"([a-z]+:)?//", one)] == [], path
    assert seen > 50


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
def test_pages_fit_their_window_and_ask_nobody_else(address: str, browser: Browser, size: tuple[int, int]) -> None:
    wrong: list[str] = []
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.on("request", lambda asked: None if asked.url.startswith(address) else wrong.append(asked.url))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    for name in PAGES:
        answer = page.goto(f"{address}{name}.html", wait_until="networkidle")
        assert answer is not None
        assert answer.ok, name
        assert page.evaluate("document.documentElement.scrollWidth - window.innerWidth") <= 0, name
        broken = page.evaluate("[...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)")
        assert broken == [], name
    assert wrong == []
    page.close()


def test_the_search_finds_a_page(address: str, browser: Browser) -> None:
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(f"{address}index.html", wait_until="networkidle")
    box = page.get_by_role("textbox", name="Search")
    box.click()
    expect(page.get_by_text("Type to start searching")).to_be_visible()
    box.press_sequentially("odd-transcripts")
    hit = page.locator(".md-search-result__link").first
    expect(hit).to_be_visible()
    hit.click()
    expect(page.locator("article")).to_contain_text("odd-transcripts")
    page.close()


@pytest.mark.parametrize(("scheme", "dark"), [("light", False), ("dark", True)])
def test_the_colours_follow_the_reader(address: str, browser: Browser, scheme: str, dark: bool) -> None:
    page = browser.new_page(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(f"{address}index.html")
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    levels = [int(level) for level in re.findall(r"\d+", colour)[:3]]
    assert (max(levels) < 100) is dark
    page.close()
