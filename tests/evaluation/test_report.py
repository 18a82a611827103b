"""The report of an evaluation: the same numbers in every form, safe to open, and readable without any script."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from marple.agent.evaluation.report import FILES, report_files
from marple.agent.evaluation.report_text import command
from marple.agent.evaluation.shown import TITLES, money, value
from marple.agent.evaluation.tables import results_of
from tests.evaluation.simulated import HOSTILE, document, row, rows

if TYPE_CHECKING:
    from playwright.sync_api import Page

SAMPLES = rows()
FILES_OF = report_files(SAMPLES, document(SAMPLES))
RESULTS: dict[str, Any] = json.loads(FILES_OF["results.json"])


class Cells(HTMLParser):
    """The numbers of a page: the value and the text of every ``data``, by section."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, list[tuple[float, str]]] = {}
        self.section = ""
        self.value: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "section":
            self.section = dict(attrs).get("id") or ""
        if tag == "data":
            self.value = dict(attrs)["value"]

    def handle_data(self, data: str) -> None:
        if self.value is not None:
            self.found.setdefault(self.section, []).append((float(self.value), data))
            self.value = None


def in_page(section: str) -> list[tuple[float, str]]:
    cells = Cells()
    cells.feed(FILES_OF["report.html"])
    return cells.found[section]


def in_text(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading of the Markdown report."""
    part = FILES_OF["report.md"].split(f"## {heading}\n")[1]
    lines = [line for line in part.split("\n## ")[0].splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def in_csv(**wanted: str) -> list[dict[str, str]]:
    lines = list(csv.DictReader(io.StringIO(FILES_OF["results.csv"])))
    return [line for line in lines if all(line[name] == text for name, text in wanted.items())]


def test_every_form_has_the_same_numbers_of_every_arm() -> None:
    shown = iter(in_page("results"))
    for row_, text in zip(RESULTS["headline"], in_text("Results"), strict=True):
        assert text[0] == row_["arm"]
        for (name, one), cell in zip(row_["measures"].items(), text[1:], strict=False):
            line = in_csv(table="headline", arm=row_["arm"], measure=name)[0]
            assert line["value"] == ("" if one["value"] is None else repr(one["value"]))
            assert line["low"] == ("" if one["low"] is None else repr(one["low"]))
            assert (line["n"], line["n_total"]) == (str(one["n"]), str(one["n_total"]))
            assert cell.split()[0] == value(name, one)
            if one["value"] is not None:
                assert next(shown) == (one["value"], value(name, one))
    for row_ in RESULTS["headline"]:
        for name in ("turns", "calls", "tokens", "target_tokens", "seconds"):
            assert next(shown)[0] == row_["costs"][name]
            assert in_csv(table="headline", arm=row_["arm"], measure=name)[0]["value"] == repr(row_["costs"][name])
    assert next(shown, None) is None


def test_every_form_has_the_same_differences() -> None:
    numbers = [number for number, _ in in_page("differences")]
    lines = [one for table in ("controls", "others") for one in in_csv(table=table, measure="balanced_accuracy")]
    assert len(RESULTS["comparisons"]) == len(lines) == 6
    for at, (one, line) in enumerate(zip(RESULTS["comparisons"], lines, strict=True)):
        assert (line["arm"], line["against"], line["value"]) == (
            one["arm"],
            one["against"],
            repr(one["difference"]["value"]),
        )
        assert (line["p"], line["p_holm"]) == (repr(one["p"]), repr(one["p_holm"]))
        assert numbers[at * 5 : at * 5 + 3] == [one["difference"]["value"], one["p"], one["p_holm"]]
    first = in_text("Differences between arms")[0]
    assert first[3].split()[0] == value("balanced_accuracy", RESULTS["comparisons"][0]["difference"], signed=True)


def test_every_sample_is_there_with_its_run() -> None:
    lines = list(csv.DictReader(io.StringIO(FILES_OF["samples.csv"])))
    assert {line["key"] for line in lines} == {one.key for one in SAMPLES}
    assert len(lines) == len(RESULTS["samples"]) == len(SAMPLES)
    links = re.findall(r'<a class="mark \w+" href="([^"]+)/"', FILES_OF["report.html"])
    assert sorted(links) == sorted(one.run for one in SAMPLES)


def test_the_same_rows_give_the_same_bytes_in_whatever_order_they_come() -> None:
    assert report_files(list(reversed(SAMPLES)), document(SAMPLES)) == FILES_OF


def test_what_is_missing_is_said_where_it_could_change_something() -> None:
    lost = sum(not one.scored for one in SAMPLES)
    assert lost
    for form in ("report.html", "report.md"):
        assert f"{len(SAMPLES) - lost} of {len(SAMPLES)} samples scored" in FILES_OF[form]
        assert f"{lost} of {len(SAMPLES)} samples have no score" in FILES_OF[form]
        assert re.search(r"\d+/72 scored, 0\.\d\d to 0\.\d\d", FILES_OF[form])
        assert "the worker was lost three times" in FILES_OF[form]


def test_a_control_arm_that_was_not_played_has_a_row_that_says_so() -> None:
    played = [one for one in SAMPLES if one.arm == "agent"]
    files = report_files(played, document(played))
    assert files["report.html"].count('<tr class="lacks">') == 2
    for form in ("report.html", "report.md"):
        for name in ("prior", "scripted-blackbox"):
            assert f"The control arm {name} was not played" in files[form]
    assert 'class="lacks"' not in FILES_OF["report.html"]


def test_an_arm_without_some_tools_is_no_control_and_one_of_some_cases_is_compared_on_those() -> None:
    samples = [
        *(row("scripted-whitebox", at, clean=at > 3, right=True) for at in range(6)),
        *(row("no-sae", at, clean=False, right=False) for at in range(2)),
        *(row("no-lens", at, clean=False, right=False) for at in (2, 3)),
    ]
    written = document(samples)
    for arm in written["arms"][1:]:
        arm.update(investigator="scripted-whitebox", without=[arm["name"].removeprefix("no-")], cases=["secret/*"])
    found = results_of(samples, written)
    assert found["controls"]["present"] == ["scripted-whitebox"]
    compared = {(one["arm"], one["against"]): one["difference"] for one in found["comparisons"]}
    assert compared.keys() == {("no-sae", "scripted-whitebox"), ("no-lens", "scripted-whitebox")}
    assert [(one["value"], one["n"], one["n_total"]) for one in compared.values()] == [(-1.0, 2, 2), (-1.0, 2, 2)]
    files = report_files(samples, written)
    for form in ("report.html", "report.md"):
        assert files[form].replace("\\", "").count("plays secret/* only") == 2
        assert "compared with others on those" in files[form]


@pytest.mark.parametrize(
    "samples",
    [
        [],
        [row("a", 1, clean=False, right=True)],
        [row("a", 1, clean=True, right=False)],
        [row("a", at, clean=at > 1, right=None, status="not_run", run="") for at in range(4)],
        [replace(row("a", at, clean=True, right=None, nothing=0.9, status="submitted"), clean=None) for at in range(3)],
        [
            row("a", at, clean=at > 3, right=True, brier=0.0, nothing=0.0, credence=1.0, credence_right=True)
            for at in range(8)
        ],
    ],
    ids=["nothing", "one", "one clean", "not run", "nobody knows", "all equal"],
)
def test_there_is_a_report_of_whatever_there_is(samples) -> None:
    files = report_files(samples, document(samples))
    assert set(files) == set(FILES)
    for text in files.values():
        assert "nan" not in text.lower().replace("nano", "")
        assert "None" not in text
    assert json.loads(files["results.json"])["counts"]["samples"] == len(samples)


def test_hostile_names_stay_text_in_every_form() -> None:
    bad = [
        replace(
            one,
            arm=HOSTILE,
            case=f"{HOSTILE}/x",
            kind=HOSTILE,
            status=HOSTILE,
            error="=cmd|' /C calc'!A0",
            run="javascript:alert(1)",
        )
        for one in rows(organisms=2, clean=1, epochs=1)
    ]
    criteria = {"success": f"{HOSTILE}\n```\n# a heading"}
    files = report_files(bad, document(bad, suite=HOSTILE, criteria=criteria, criteria_sha256="ab"))
    page = files["report.html"]
    assert "<script" not in page
    assert "javascript:" not in page.replace("&", "")
    assert '<a class="mark' not in page  # a run that is no folder of this evaluation is no link
    for form in ("report.html", "report.md", "samples.csv"):
        assert "\u202e" not in files[form]
        assert "\x1b" not in files[form]
    assert all(not line["error"].startswith("=") for line in csv.DictReader(io.StringIO(files["samples.csv"])))
    text = re.sub(r"(?ms)^(`{3,})text$.*?^\1$", "", files["report.md"])
    assert "<script" not in text.replace("\\<script", "")
    assert not re.search(r"^# a heading", text, re.MULTILINE)
    lines = text.splitlines()
    heads = [(lines[at - 1], line) for at, line in enumerate(lines) if line.startswith("| ---")]
    assert all(head.count(" | ") == rule.count(" | ") for head, rule in heads)


def test_arms_that_differ_in_their_budget_alone_are_one_series() -> None:
    agent = [one for one in SAMPLES if one.arm == "agent"]
    cheap = [replace(one, arm="cheap", key=f"{one.key}-cheap", target_tokens=one.target_tokens // 9) for one in agent]
    said = document([*SAMPLES, *cheap])
    arms = {arm["name"]: arm for arm in said["arms"]}
    arms["cheap"] |= {**arms["agent"], "name": "cheap", "budget": {"calls": 5}}
    files = report_files([*SAMPLES, *cheap], said)
    assert json.loads(files["results.json"])["series"] == [["cheap", "agent"]]
    assert files["report.html"].count('class="joined"') == 4
    assert 'class="joined"' not in FILES_OF["report.html"]


def test_the_command_plays_the_same_plan() -> None:
    plain = [one for one in SAMPLES if one.arm in ("prior", "scripted-blackbox")]
    said = command(json.loads(report_files(plain, document(plain))["results.json"]))
    assert said == (
        "marple evaluate nano --arms prior,scripted-blackbox --no-controls --epochs 3 --run-budget calls=40 --out DIR"
    )
    assert "--arms arms.yaml" in FILES_OF["report.md"]
    assert "without:\n  - sae" in FILES_OF["report.md"]


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    from playwright.sync_api import sync_playwright

    file = tmp_path_factory.mktemp("report") / "report.html"
    file.write_text(FILES_OF["report.html"], encoding="utf-8")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_page(java_script_enabled=True)
        page.goto(file.as_uri())
        yield page
        browser.close()


def chromium() -> str | None:
    """The machine's own browser, or None for the one that playwright brought."""
    return "/usr/bin/chromium" if Path("/usr/bin/chromium").exists() else None


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_fits_a_desk_and_a_phone_and_is_legible_by_day_and_by_night(
    page: Page, width: int, scheme: Any
) -> None:
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    texts = "[...document.querySelectorAll('h1,h2,h3,p,li,figure,dd')]"
    assert page.evaluate(f"{texts}.every(e => e.getBoundingClientRect().right <= innerWidth + 1)")
    for selector in ("body", ".note", "tbody th", ".mark.right", ".mark.wrong", ".mark.unscored", "thead th"):
        assert contrast(page, selector) >= 4.5, selector


def test_the_page_needs_nothing_else_and_runs_no_script(page: Page) -> None:
    assert page.evaluate("document.scripts.length + document.querySelectorAll('link, img, iframe').length") == 0
    assert page.evaluate("performance.getEntriesByType('resource').length") == 0


def test_the_page_can_be_read_without_seeing_it(page: Page) -> None:
    """Plots say in words what they show, tables that scroll can be reached by keyboard, headings are in order."""
    assert page.locator("svg[role=img]").count() > 20
    assert page.locator("svg[role=img]:not([aria-label])").count() == 0
    assert page.get_by_role("img", name=re.compile(r"agent: balanced accuracy 0\.\d+ \[")).count() >= 1
    assert page.locator(".scroll:not([tabindex='0'])").count() == 0
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map(h => +h.tagName[1])")
    assert levels[0] == 1
    assert all(after <= before + 1 for before, after in zip(levels, levels[1:], strict=False))
    assert page.locator("table").count() == page.locator("table:has(th[scope=col])").count()


def contrast(page: Page, selector: str) -> float:
    """The contrast of a text with what is behind it, as WCAG 2 has it."""
    script = """selector => {
      const rgb = text => text.match(/[\\d.]+/g).map(Number);
      const light = c => c.slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      let element = document.querySelector(selector), behind = element;
      while (rgb(getComputedStyle(behind).backgroundColor)[3] === 0) behind = behind.parentElement;
      const two = [light(rgb(getComputedStyle(element).color)), light(rgb(getComputedStyle(behind).backgroundColor))];
      return (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05);
    }"""
    return float(page.evaluate(script, selector))


def test_titles_are_there_for_every_measure() -> None:
    assert set(TITLES) == set(RESULTS["headline"][0]["measures"])


@pytest.mark.parametrize(
    ("name", "number", "signed", "text"),
    [
        ("solved", 0.9583, False, "0.96"),
        ("brier", 0.01249, False, "0.012"),
        ("forecast_skill", 0.247, False, "+0.25"),
        ("balanced_accuracy", 0.055, True, "+0.06"),
        ("forecast_skill", -0.0004, False, "+0.00"),
        ("brier", -0.0004, True, "+0.000"),
        ("solved", None, False, "–"),
    ],
)
def test_numbers_are_written_with_the_digits_of_their_measure(
    name: str, number: float, signed: bool, text: str
) -> None:
    assert value(name, {"value": number}, signed=signed) == text


def test_a_sum_with_unknown_prices_is_not_written_as_if_it_were_whole() -> None:
    assert money({"begun": 3, "cost_usd": 0.0, "cost_unknown": 0}) == "$0.00"
    assert money({"begun": 3, "cost_usd": 0.001, "cost_unknown": 0}) == "under $0.01"
    assert money({"begun": 3, "cost_usd": 1.5, "cost_unknown": 1}) == "$1.50 and 1 of 3 unknown"
    assert money({"begun": 3, "cost_usd": 0.0, "cost_unknown": 3}) == "unknown"
    assert money({"begun": 0, "cost_usd": 0.0, "cost_unknown": 0}) == "–"
