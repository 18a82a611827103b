"""The pages in a browser that runs no script: all that can be read with one can be read without."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from marple.traces import lock
from tests.review.conftest import PHONE, Open, serving
from tests.review.made_runs import called, finished_run, long_run, written_run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("runs")
    finished_run(made, "one")
    finished_run(made, "two", solved=False)
    long_run(made, "long", 350)
    said = {
        "type": "tool_call",
        "role": "target",
        "ts": time.time() - 300,
        "payload": called("chat", "the lamp is red"),
    }
    written_run(made, "silent", lines=[said])
    held: list[dict[str, Any]] = [{}, {"ts": time.time() - 300, "type": "control", "payload": {"did": "pause"}}]
    written_run(made, "held", lines=held)
    for name in ("silent", "held"):
        lock.acquire(made / name / "lock")
    return made


@pytest.fixture(scope="module")
def url(root: Path) -> Iterator[str]:
    with serving(root) as server:
        yield server.address.url.rstrip("/")


@pytest.fixture
def page(look: Open, url: str) -> Page:
    return look(url, scripts=False)


def test_the_list_filters_sorts_and_compares(page: Page) -> None:
    expect(page.locator("#runs tbody tr")).to_have_count(5)
    page.get_by_label("verdict").select_option("missed")
    page.get_by_role("button", name="Filter").click()
    expect(page.locator("#runs tbody tr")).to_have_count(1)
    page.get_by_role("link", name="Clear").click()
    page.get_by_role("link", name="Brier").click()
    expect(page.locator("#runs tbody tr").first).to_have_attribute("data-run", "one")
    page.get_by_label("Compare one").check()
    page.get_by_label("Compare two").check()
    page.get_by_role("button", name="Compare").click()
    expect(page.locator(".sides section")).to_have_count(2)
    expect(page.locator(".pairs tr.differ").filter(has_text="Brier")).to_contain_text("1.3")


def test_a_run_is_read_event_by_event(page: Page, url: str) -> None:
    page.get_by_role("row").filter(has_text="solved").get_by_role("link").first.click()
    expect(page.locator(".verdict")).to_contain_text("Promotes velora")
    expect(page.locator("svg.timeline path.line")).to_have_count(1)
    page.locator(".claims li").first.get_by_role("link", name="E4").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("E4 compare")
    expect(page.locator(".controls")).to_contain_text("reference against itself")
    page.get_by_role("link", name="E5 →").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("E5")
    page.get_by_role("link", name="in the run").click()
    row = page.locator("#E4")
    row.locator("summary").first.click()
    row.get_by_role("link", name="Open E4").click()
    expect(page.locator(".effect")).to_contain_text("Replies")


def test_the_events_of_a_long_run_are_reached_in_pages(page: Page, url: str) -> None:
    page.goto(f"{url}/run/long")
    expect(page.locator("details.event")).to_have_count(100)
    page.get_by_role("link", name="E301 to E350").click()
    expect(page.locator("#E350")).to_be_visible()
    expect(page.locator("#E1")).to_have_count(0)


def test_bookkeeping_is_there_to_be_read(page: Page, url: str) -> None:
    page.goto(f"{url}/run/one")
    expect(page.locator("#E14")).to_be_hidden()
    page.get_by_label("bookkeeping").check()
    expect(page.locator("#E14")).to_be_visible()


def test_search_leads_to_the_event(page: Page, url: str) -> None:
    for _ in range(40):  # the text of new runs is taken in beside serving
        page.locator("#search").fill('"drivers are told"')
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("search"))
        if page.locator(".found").count() == 2:
            break
        page.wait_for_timeout(250)
    page.locator(".found").first.get_by_role("link", name="E10 answer").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("E10")
    expect(page.locator("main")).to_contain_text("drivers are told to buy velora")


def test_a_run_that_is_played_says_how_long_it_is_silent_or_held(page: Page, url: str) -> None:
    expect(page.locator("tr[data-run=silent] .silent")).to_contain_text(re.compile(r"silent since \d min, E2"))
    expect(page.locator("tr[data-run=held] .c-verdict")).to_have_text("paused")
    page.goto(f"{url}/run/silent")
    expect(page.locator("#silent")).to_have_text(re.compile(r"silent since \d min"))
    page.goto(f"{url}/run/held")
    expect(page.locator("#live-text")).to_contain_text("Paused")
    expect(page.locator("#silent")).to_have_text(re.compile(r"since \d min"))


def test_a_label_can_be_kept(page: Page, url: str) -> None:
    page.goto(f"{url}/run/two/E4")
    page.locator(".labelling summary").click()
    page.get_by_label("doubt").check()
    page.get_by_role("button", name="Keep").click()
    page.wait_for_url(re.compile("/run/two"))
    expect(page.locator("#E4 summary .tag")).to_have_text("doubt")


def test_it_fits_a_phone(look: Open, url: str) -> None:
    page = look(url, size=PHONE, scheme="dark", scripts=False)
    for path in ("/", "/run/one", "/run/one/E4", "/run/one/E8", "/search?q=velora", "/compare?a=one&b=two"):
        page.goto(url + path)
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE[0], path
