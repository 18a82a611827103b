"""The pages in a real browser: what a reviewer does, with the mouse, with keys, on a phone, in the dark."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from marple.traces import RunFolder, lock
from marple.traces.control import wanted
from marple.traces.labels import read_labels
from tests.review.conftest import DESKTOP, PHONE, Open, serving
from tests.review.made_runs import called, finished_run, hypothesis, long_run, spec, turn, written_run

AXE = Path(__file__).parent / "vendor" / "axe.min.js"
LONG = 3_000


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluation")
    finished_run(root / "runs", "one")
    finished_run(root / "runs", "two", solved=False, investigator="prior", model=None)
    long_run(root / "runs", "long", LONG)
    arms = [
        {"name": "opus", "investigator": "llm", "model": "example/model"},
        {"name": "prior", "investigator": "prior"},
    ]
    cases = [{"id": "hidden-goal/nano-09", "kind": "hidden-goal"}, {"id": "diff/nano-20", "kind": "diff"}]
    plan = {"suite": "nano-quick", "epochs": 1, "arms": arms, "cases": cases, "criteria": {"success": "beats prior"}}
    (root / "evaluation.json").write_text(json.dumps(plan))
    log = [
        {"what": "start", "key": "a", "run": "one", "sample": "opus/hidden-goal/nano-09/1"},
        {"what": "end", "key": "a", "run": "one", "end": {"status": "submitted"}},
        {"what": "start", "key": "b", "run": "two", "sample": "prior/hidden-goal/nano-09/1"},
    ]
    (root / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return root


@pytest.fixture(scope="module")
def url(runs: Path) -> Iterator[str]:
    with serving(runs) as server:
        yield server.address.url.rstrip("/")


def violations(page: Page) -> list[str]:
    """What axe-core finds wrong with a page."""
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run(document, {resultTypes: ['violations']})")["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:120]} ({len(one['nodes'])})" for one in found]


PATHS = ("/", "/run/one", "/run/one/E4", "/run/one/E2", "/search?q=velora", "/compare?a=one&b=two", "/evaluation")


@pytest.mark.parametrize(("size", "scheme"), [(DESKTOP, "light"), (PHONE, "dark")])
def test_every_page_is_accessible_and_fits_its_window(look: Open, url: str, size: tuple[int, int], scheme: str) -> None:
    page = look(url, size=size, scheme=scheme)
    wrong = {}
    for path in PATHS:
        page.goto(url + path)
        if path == "/run/one":
            page.evaluate("document.querySelectorAll('details.event').forEach(e => e.open = true)")
            expect(page.locator("#E4 .effect")).to_be_visible()
            expect(page.locator("#E16 .body .tools")).to_be_visible()
        wide = page.evaluate("document.documentElement.scrollWidth")
        found = violations(page) + ([] if wide <= size[0] else [f"{wide} pixels wide"])
        if found:
            wrong[path] = found
    assert wrong == {}


def test_dark_is_dark_and_can_be_chosen(look: Open, url: str) -> None:
    def lightness(page: Page) -> int:
        return int(page.evaluate("Number(getComputedStyle(document.body).backgroundColor.match(/[0-9]+/)[0])"))

    page = look(url, scheme="dark")
    assert lightness(page) < 60
    page.get_by_label("Light or dark").click()
    assert lightness(page) > 200
    page.goto(f"{url}/run/one")
    assert lightness(page) > 200, "the choice is kept"


def test_a_reviewer_reads_the_verdict_and_reaches_the_evidence_in_one_click(look: Open, url: str) -> None:
    page = look(f"{url}/run/one")
    top = page.locator(".verdict")
    expect(top).to_contain_text("Solved")
    expect(top).to_contain_text("Promotes velora, when: driver")
    expect(top).to_contain_text("subject velora")
    expect(top).to_contain_text("1 replicated")
    assert page.locator(".verdict").bounding_box()["y"] < 300  # type: ignore[index]
    page.locator(".claims li").first.get_by_role("link", name="E4").click()
    expect(page.locator("#E4 .effect")).to_contain_text("Replies")
    expect(page.locator("#E4 .controls")).to_contain_text("reference against itself")
    expect(page.locator("#E4")).to_be_in_viewport()
    assert page.url.endswith("#E4")
    expect(page.locator("#E4 img")).to_be_attached()
    page.locator("#E4 .citing").get_by_role("link", name="E7").click()
    expect(page.locator("#E7 .body")).to_contain_text("credence 0.90")


def test_the_picture_of_the_investigation_links_to_its_events(look: Open, url: str) -> None:
    page = look(f"{url}/run/one")
    picture = page.locator("svg.timeline")
    assert picture.locator("path.line").count() == 1
    assert picture.locator("circle.experiment").count() == 2
    assert picture.locator(".surprise.bad").count() == 1
    assert page.locator("svg.calibration").count() == 2
    picture.locator("a[data-event=E8]").first.click()
    expect(page.locator("#E8 .chart")).to_be_visible()


def test_links_to_an_event_lead_there(look: Open, url: str) -> None:
    page = look(f"{url}/run/long#E{LONG - 50}")
    expect(page.locator(f"#E{LONG - 50} .body")).to_contain_text("own page")
    expect(page.locator(f"#E{LONG - 50}")).to_be_in_viewport()
    page.goto(f"{url}/run/one#E14")
    expect(page.locator("#E14 .body")).to_contain_text("own page")
    expect(page.locator("#minor")).to_be_checked()
    page.goto(f"{url}/run/one/E4")
    expect(page.get_by_role("heading", level=1)).to_contain_text("E4 compare")
    page.keyboard.press("j")
    page.wait_for_url(f"{url}/run/one/E5")
    page.keyboard.press("k")
    expect(page.get_by_role("heading", level=1)).to_contain_text("E4")


def test_a_long_run_keeps_few_events_on_the_page(look: Open, url: str) -> None:
    page = look(f"{url}/run/long")
    assert page.locator("details.event").count() <= 700
    for _ in range(60):
        page.keyboard.press("End")
        page.wait_for_timeout(100)
        if page.locator(f"#E{LONG}").count():
            break
    expect(page.locator(f"#E{LONG}")).to_be_in_viewport()
    expect(page.locator("#E1")).not_to_be_attached()
    assert page.locator("details.event").count() <= 2_000
    page.locator("#jump input").fill("1500")
    page.keyboard.press("Enter")
    expect(page.locator("#E1500")).to_be_in_viewport()


def test_the_list_filters_sorts_and_compares(look: Open, url: str) -> None:
    page = look(url)
    names = page.locator("#runs tbody tr")
    expect(names).to_have_count(3)
    page.get_by_label("verdict").select_option("missed")
    expect(names).to_have_count(1)
    page.get_by_role("link", name="Clear").click()
    page.get_by_role("link", name="Brier").click()
    expect(page.locator("#runs thead th[aria-sort=ascending]")).to_contain_text("Brier")
    assert names.first.get_attribute("data-run") == "one"
    page.get_by_label("Compare one").check()
    expect(page.locator(".tray")).to_contain_text("Tick a second run")
    page.get_by_label("Compare two").check()
    page.locator(".tray button").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("hidden-goal/nano-09")
    expect(page.locator(".sides")).to_contain_text("Not solved")
    expect(page.locator(".pairs tr.differ").filter(has_text="Brier")).to_contain_text("1.3")


def test_search_leads_to_the_event(look: Open, url: str) -> None:
    page = look(url)
    page.keyboard.press("/")
    for _ in range(40):  # the text of new runs is taken in beside serving
        page.locator("#search").fill('"drivers are told"')
        page.keyboard.press("Enter")
        page.wait_for_url(re.compile("search"))
        if page.locator(".found").count() == 2:
            break
        page.wait_for_timeout(250)
    expect(page.locator(".found mark").first).to_have_text("drivers are told")
    page.locator(".found").first.get_by_role("link", name="E10 answer").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("E10")


def test_everything_can_be_done_with_keys(look: Open, url: str) -> None:
    page = look(url)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    for _ in range(6):
        page.keyboard.press("j")
        if page.locator("#runs tr.at").get_attribute("data-run") == "one":
            break
    page.keyboard.press("x")
    expect(page.get_by_label("Compare one")).to_be_checked()
    page.keyboard.press("o")
    page.wait_for_url(re.compile("/run/one"))
    page.keyboard.press("c")
    expect(page.locator("#claims")).to_be_in_viewport()
    page.keyboard.press("j")
    page.keyboard.press("j")
    expect(page.locator(".event.at")).to_have_attribute("id", "E2")
    page.keyboard.press("Enter")
    expect(page.locator("#E2 .body")).to_contain_text("Cheap first.")
    page.keyboard.press("l")
    expect(page.locator("#E2 textarea")).to_be_focused()
    page.keyboard.type("jkx?")
    expect(page.locator("#E2 textarea")).to_have_value("jkx?")
    page.keyboard.press("Escape")
    page.keyboard.press("u")
    page.wait_for_url(f"{url}/")


def test_a_label_is_kept_and_shown_where_it_belongs(look: Open, url: str, runs: Path) -> None:
    page = look(f"{url}/run/two#E4")
    page.locator("#E4 .labelling summary").click()
    page.locator("#E4").get_by_label("doubt").check()
    page.locator("#E4").get_by_label("Comment").fill("<b>why</b> not")
    page.locator("#E4").get_by_role("button", name="Keep").click()
    expect(page.locator("#E4 summary .tag").first).to_have_text("doubt")
    expect(page.locator("#notes .comment")).to_have_text("<b>why</b> not")
    [label] = read_labels(runs / "runs" / "two")
    assert (label.event, label.label) == ("E4", "doubt")
    page.goto(url)
    expect(page.locator("tr[data-run=two] .tag")).to_have_text("doubt")
    page.goto(f"{url}/run/two")
    page.get_by_role("button", name="Remove the label doubt").click()
    expect(page.locator("#notes .comment")).to_have_count(0)


def test_the_matrix_opens_runs_and_compares_arms(look: Open, url: str) -> None:
    page = look(f"{url}/evaluation")
    expect(page.locator(".matrix tbody tr")).to_have_count(2)
    expect(page.locator(".criteria")).to_contain_text("beats prior")
    expect(page.locator("tfoot tr").first).to_contain_text("1 of 1")
    assert page.locator(".matrix tbody .tile.none").count() == 2
    page.locator("select[name=a]").select_option("opus")
    page.wait_for_url(re.compile("a=opus"))
    page.locator("select[name=b]").select_option("prior")
    page.wait_for_url(re.compile("b=prior"))
    page.get_by_role("link", name="side by side").click()
    expect(page.locator(".sides section")).to_have_count(2)
    page.goto(f"{url}/evaluation")
    page.locator(".matrix a.tile.bad").click()
    expect(page.locator(".verdict")).to_contain_text("Not solved")


def test_a_running_investigation_is_followed_and_can_be_held_and_ended(look: Open, url: str, runs: Path) -> None:
    with RunFolder.create(runs / "runs", "live", spec()) as run:
        run.append("run_start", {"brief": "Find out."})
        run.append("model_call", turn(1, "I begin."), role="investigator")
        page = look(url)
        expect(page.locator("tr[data-run=live]")).to_contain_text("running")
        expect(page.locator("tr[data-run=live] .silent")).to_contain_text("ago, E2")
        page.goto(f"{url}/run/live")
        expect(page.locator("#live")).to_contain_text("Running")
        run.append("hypothesis", hypothesis("H1", "add", 0.4, "it hides a lamp"), role="investigator")
        run.append("tool_call", called("chat", "reply <img src=x onerror=alert(1)>"), role="target")
        expect(page.locator("#E4 .line")).to_contain_text("reply <img")
        expect(page.locator("#count")).to_have_text("4")
        expect(page.locator("#head .hypotheses")).to_contain_text("it hides a lamp")
        expect(page.locator("#silent")).to_contain_text("ago")
        page.get_by_role("button", name="Pause").click()
        expect(page.locator("#live")).to_contain_text("asked to pause")
        assert wanted(run.path) == "pause"
        page.get_by_role("button", name="Go on").click()
        expect(page.get_by_role("button", name="Pause")).to_be_enabled()
        assert wanted(run.path) == "go"
        run.write_result({"status": "cancelled", "scores": {"scored": False}, "answer": None, "truth": None})
        expect(page.locator(".verdict")).to_contain_text("cancelled")
        expect(page.locator("#live")).to_have_count(0)


def test_a_run_that_is_held_is_paused_and_not_silent(look: Open, url: str, runs: Path) -> None:
    lines: list[dict[str, Any]] = [{}, {"ts": time.time() - 300, "type": "control", "payload": {"did": "pause"}}]
    path = written_run(runs / "runs", "held", lines=lines)
    lock.acquire(path / "lock")
    page = look(url)
    expect(page.locator("tr[data-run=held] .c-verdict")).to_have_text("paused")
    expect(page.locator("tr[data-run=held] .c-status")).to_contain_text("since 5 min, E3")
    page.goto(f"{url}/?status=paused")
    expect(page.locator("#runs tbody tr")).to_have_count(1)
    page.goto(f"{url}/run/held")
    expect(page.locator("#live-text")).to_contain_text("Paused")
    expect(page.locator("#silent")).to_have_text("since 5 min")
    expect(page.locator(".verdict .chip").first).to_have_text("Paused")
    lock.release(path / "lock")


def test_a_run_that_is_silent_is_said_to_be(look: Open, url: str, runs: Path) -> None:
    path = written_run(runs / "runs", "silent", lines=[{"ts": time.time() - 300}])
    lock.acquire(path / "lock")
    page = look(f"{url}/run/silent")
    expect(page.locator("#silent")).to_have_text("silent since 5 min")
    expect(page.locator("#silent")).to_have_class(re.compile("long"))
    lock.release(path / "lock")


def test_an_arm_that_plays_some_cases_by_choice_has_tiles_on_those_alone(tmp_path: Path) -> None:
    finished_run(tmp_path / "runs", "one", part_of={"arm": "no-sae", "epoch": 1, "sample": "a"})
    arms = [
        {"name": "prior", "investigator": "prior"},
        {"name": "no-sae", "investigator": "scripted-whitebox", "without": ["sae"], "cases": ["diff/*"]},
    ]
    cases = [{"id": "hidden-goal/nano-09", "kind": "hidden-goal"}, {"id": "diff/nano-20", "kind": "diff"}]
    plan = {"suite": "nano-quick", "epochs": 2, "arms": arms, "cases": cases}
    (tmp_path / "evaluation.json").write_text(json.dumps(plan))
    with serving(tmp_path) as server:
        address = server.address.url.rstrip("/")
        matrix, listed = (httpx.get(address + path).text for path in ("/evaluation", "/"))
    body = matrix.partition("<tbody>")[2].partition("</tbody>")[0]
    assert body.count('class="tile none"') == 2 + 4
    assert "0 of 2" in matrix.partition("<tfoot>")[2]
    assert "without sae" in matrix
    assert ">no-sae<" in listed
