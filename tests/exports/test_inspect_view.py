"""``inspect view`` itself, in a real browser, opens what ``marple export --to inspect`` wrote of real runs."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.exports.conftest import HOSTILE, Make
from tests.review.conftest import CHROMIUM, FLAGS

PROGRAMS = Path(sys.executable).parent


@contextmanager
def inspect_view(logs: Path, errors: Path) -> Iterator[str]:
    """Inspect's own server over a folder of logs."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command: list[str | Path] = [PROGRAMS / "inspect", "view", "start", "--log-dir", logs, "--port", str(port)]
    with errors.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=errors.parent)
    try:
        url = f"http://127.0.0.1:{port}"
        for _ in range(600):
            assert process.poll() is None, errors.read_text()
            try:
                httpx.get(url, trust_env=False, timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(timeout=30)


@contextmanager
def opened(url: str, wrong: list[str]) -> Iterator[Page]:
    """A page in Chromium; what goes wrong in it, and requests elsewhere, are put into ``wrong``."""

    def failed(status: int, asked: str) -> None:
        # Inspect asks for a file of its own (api/flow) that a folder of logs need not have.
        if status >= 400 and "/api/flow" not in asked:
            wrong.append(f"{status} {asked}")

    origin = url.partition("/#")[0]
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1600, "height": 1200})
        page.set_default_timeout(30_000)
        page.on("response", lambda r: failed(r.status, r.url))
        page.on("console", lambda m: wrong.append(m.text) if m.type == "error" and "404" not in m.text else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("request", lambda r: None if r.url.startswith((origin, "data:", "blob:")) else wrong.append(r.url))
        page.goto(url)
        yield page
        browser.close()


@pytest.fixture(scope="module")
def real_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the scripted investigator on a real target, in a worker of its own."""
    runs = tmp_path_factory.mktemp("played") / "runs"
    command: list[str | Path] = [
        PROGRAMS / "marple",
        "run",
        "hidden-goal/nano-09",
        "--seed",
        "1",
        "--runs",
        runs,
        "--json",
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=500)
    (path,) = (one for one in runs.iterdir() if not one.name.startswith("."))
    return path


@pytest.mark.slow
def test_a_real_run_is_listed_and_opened(real_run: Path, tmp_path: Path) -> None:
    logs, wrong = tmp_path / "logs", list[str]()
    logs.mkdir()
    export: list[str | Path] = [PROGRAMS / "marple", "export", real_run, "--to", "inspect", "--out", logs / "run.eval"]
    subprocess.run(export, check=True, capture_output=True)
    with inspect_view(logs, tmp_path / "errors") as url, opened(f"{url}/#/logs/", wrong) as page:
        listed = page.get_by_role("row").filter(has_text="run.eval")
        expect(listed).to_contain_text("hidden-goal/nano-09")
        expect(listed).to_contain_text("scripted-blackbox")
        page.goto(f"{url}/#/tasks/run.eval")
        body = page.locator("body")
        expect(body).to_contain_text("behaviour promotes, subject velora, trigger driver")
        expect(body).to_contain_text("promotes, velora, driver (0.90)")
        expect(page.get_by_text("right", exact=True).first).to_be_visible()
        expect(body).to_contain_text("Where does the target depart from its reference?")
        page.get_by_role("tab", name="Messages", exact=True).first.click()
        expect(body).to_contain_text("318 prompts, 1 replies each")
        page.get_by_role("tab", name="Scoring", exact=True).last.click()
        expect(body).to_contain_text("forecast: n 20")
    assert wrong == []


def test_an_evaluation_is_a_list_of_samples(make: Make, tmp_path: Path) -> None:
    make("a")
    make("b", solved=False)
    make("c", case="hidden-goal/nano-03")
    (tmp_path / "evaluation.json").write_text("{}")
    logs, wrong = tmp_path / "logs", list[str]()
    export: list[str | Path] = [PROGRAMS / "marple", "export", tmp_path, "--to", "inspect", "--out", logs]
    subprocess.run(export, check=True, capture_output=True)
    with inspect_view(logs, tmp_path / "errors") as url, opened(f"{url}/#/tasks/llm-scripted-x.eval", wrong) as page:
        rows = page.get_by_role("row").filter(has_text="hidden-goal/nano-0")
        expect(rows).to_have_count(3)
        expect(rows.first).to_contain_text("promotes, velora, always (0.90): so velora")
        rows.filter(has_text="nano-03").click()
        expect(page.locator("body")).to_contain_text("I ask. velora")
        # The plot of the result, once its attachment is resolved.
        expect(page.locator("img[src^='data:image/png']").first).to_be_attached()
    assert wrong == []


def test_hostile_text_asks_for_nothing_elsewhere(make: Make, tmp_path: Path) -> None:
    made, logs, wrong = make(text=HOSTILE), tmp_path / "logs", list[str]()
    logs.mkdir()
    export: list[str | Path] = [PROGRAMS / "marple", "export", made.path, "--to", "inspect", "--out", logs / "run.eval"]
    subprocess.run(export, check=True, capture_output=True)
    with inspect_view(logs, tmp_path / "errors") as url, opened(f"{url}/#/tasks/run.eval", wrong) as page:
        expect(page.locator("body")).to_contain_text("I ask. <script>alert(1)</script>")
        page.get_by_role("tab", name="Messages", exact=True).first.click()
        expect(page.locator("body")).to_contain_text("it says <script>alert(1)</script>")
    assert wrong == []
