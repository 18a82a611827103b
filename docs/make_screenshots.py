"""The pictures of the review app in docs/images: plays a few real runs, opens them in Chromium, and writes small PNGs.

``python docs/make_screenshots.py [--runs FOLDER] [--only NAME]``; with a folder of runs, nothing is played.
"""

from __future__ import annotations

import argparse
import io
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from marple.traces import RunFolder
from marple.traces.index import RunIndex
from marple.traces.review.serving import Server

DOCS = Path(__file__).parent
IMAGES = DOCS / "images"
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
PLAYED = (
    ("hidden-goal/nano-03", "scripted-blackbox"),
    ("hidden-goal/nano-09", "prior"),
    ("hidden-goal/nano-09", "scripted-blackbox"),
    ("hidden-goal/nano-09", "scripted-whitebox"),
)
COLOURS = 96
"""Of the PNGs' palettes: flat pages need no more, and the files are a third of the size."""


def play(runs: Path) -> None:
    """Play the runs that are pictured, the one on the tutorial's own fine-tune among them."""
    for case, investigator in PLAYED:
        command = [sys.executable, "-m", "marple.cli", "run", case, "--investigator", investigator, "--runs", str(runs)]
        subprocess.run(command, check=True)
    adapter = str(runs.parent / "my-adapter")
    subprocess.run([sys.executable, str(DOCS / "fine_tune.py"), adapter], check=True)
    subprocess.run([sys.executable, "-m", "marple.cli", "run", "--target", adapter, "--runs", str(runs)], check=True)


def pictures(runs: Path) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Name, path and settings of each picture."""
    entries = list(RunIndex(runs).entries())
    newest = next(entry for entry in entries if entry.arm == "scripted-whitebox")
    own = next(entry for entry in entries if entry.case == "hidden-goal/own-target")
    clean = next(entry for entry in entries if entry.case == "hidden-goal/nano-03")
    run = f"run/{newest.name}"
    evidence = next(
        e.id
        for e in RunFolder.open(runs / newest.name).events()
        if e.payload.get("tool") == "compare" and e.type == "tool_call"
    )
    desktop, phone = {"width": 1180, "height": 1120}, {"width": 390, "height": 780}
    yield "review-run", run, {"viewport": desktop, "color_scheme": "light"}
    yield "review-list", "", {"viewport": {"width": 1180, "height": 420}, "color_scheme": "light"}
    yield "review-evidence", f"{run}/{evidence}", {"viewport": {"width": 1180, "height": 900}, "color_scheme": "dark"}
    yield "review-own", f"run/{own.name}", {"viewport": {"width": 1180, "height": 720}, "color_scheme": "light"}
    yield "review-clean", f"run/{clean.name}", {"viewport": {"width": 1180, "height": 560}, "color_scheme": "light"}
    yield "review-phone", run, {"viewport": phone, "color_scheme": "dark"}


def shoot(browser: Browser, url: str, name: str, settings: dict[str, Any]) -> None:
    """One picture."""
    page = browser.new_page(**settings)
    answer = page.goto(url, wait_until="networkidle")
    if answer is None or not answer.ok:
        raise SystemExit(f"{name}: {url} did not answer as it should")
    with Image.open(io.BytesIO(page.screenshot())) as taken:
        small = taken.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
    IMAGES.mkdir(exist_ok=True)
    small.save(IMAGES / f"{name}.png", optimize=True)
    print(f"{name}.png  {(IMAGES / f'{name}.png').stat().st_size // 1024} KiB")
    page.close()


def main() -> None:
    """Play, serve, picture."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=Path, help="a folder that holds the runs already")
    parser.add_argument("--only", help="the one picture that is made; all by default")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = given.runs or Path(folder) / "runs"
        if given.runs is None:
            play(runs)
        server = Server(runs, port=0)
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            with sync_playwright() as started:
                browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
                for name, path, settings in pictures(runs):
                    if given.only in (None, name):
                        shoot(browser, server.address.url + path, name, settings)
                browser.close()
        finally:
            server.stop()
            thread.join()


if __name__ == "__main__":
    main()
