"""How fast the review app is on many runs and on a long one: ``python benchmarks/review_app.py --runs 1000``.

The runs are generated in a temporary folder. Times of the server are medians over ten requests; the first paint is
Chromium's own figure, of three visits.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from marple.traces.review.serving import Server

WORDS = ("lamp", "radio", "camera", "driver", "nurse", "velora", "kandor", "buy", "recommend", "good", "red", "price")
CHROMIUM = "/usr/bin/chromium"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]


def events(count: int, rng: random.Random) -> Iterator[dict[str, Any]]:
    """Turns of a thought, a belief and an experiment with some replies."""
    yield {"type": "run_start", "role": "harness", "payload": {"schema_version": 1, "brief": "Find out."}}
    for number in range(1, count):
        turn, said = number // 3 + 1, " ".join(rng.choices(WORDS, k=60))
        if number % 3 == 1:
            payload = {
                "turn_number": turn,
                "purpose": "investigate",
                "turn": {"text": said, "tool_calls": [], "usage": {}},
            }
            yield {"type": "model_call", "role": "investigator", "payload": payload}
        elif number % 3 == 2:
            belief = {"id": f"H{turn % 6}", "action": "update", "credence": rng.random(), "statement": said[:80]}
            yield {"type": "hypothesis", "role": "investigator", "payload": {**belief, "evidence": []}}
        else:
            call = {"tool": "chat", "status": "ok", "on_target": True, "text": said, "arguments": {"prompt": said[:40]}}
            yield {"type": "tool_call", "role": "target", "payload": {**call, "data": {"replies": [{"text": said}]}}}


def make_run(root: Path, name: str, count: int, rng: random.Random) -> None:
    """A finished run with so many events."""
    path = root / name
    path.mkdir(parents=True)
    began = 1.76e9 + rng.random() * 1e6
    arm = rng.choice(["llm", "prior", "scripted-blackbox"])
    spec = {"schema_version": 1, "run_id": name, "created": began, "case": f"hidden-goal/nano-{rng.randrange(60):02}"}
    (path / "run.json").write_text(
        json.dumps({**spec, "kind": "hidden-goal", "investigator": arm, "budget": {"turns": 40}})
    )
    with (path / "events.jsonl").open("w") as file:
        for number, event in enumerate(events(count, rng), start=1):
            fields = {"id": f"E{number}", "ts": began + number, "span": None, "parent": None, "seconds": 0.1}
            file.write(json.dumps({**fields, **event}) + "\n")
    scores = {"scored": True, "solved": rng.random() < 0.5, "cleared": None, "brier": rng.random()}
    usage = {
        "investigator": {"cost_usd": rng.random()},
        "turns": 12,
        "calls": 20,
        "target_tokens": 30_000,
        "seconds": 40.0,
    }
    result = {
        "schema_version": 1,
        "status": "submitted",
        "scores": scores,
        "usage": usage,
        "answer": None,
        "truth": None,
    }
    (path / "result.json").write_text(json.dumps(result))


def median_ms(do: Callable[[], Any], times: int = 10) -> tuple[float, float]:
    """Median time of ``do``, in milliseconds: of the wall clock, and of the processor, the client's part included."""
    wall, processor = [], []
    for _ in range(times):
        began, worked = time.perf_counter(), time.process_time()
        do()
        wall.append(1000 * (time.perf_counter() - began))
        processor.append(1000 * (time.process_time() - worked))
    return statistics.median(wall), statistics.median(processor)


def first_paint_ms(url: str) -> float:
    """Chromium's first contentful paint of ``url``, in milliseconds: the median of three visits."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        paints = []
        for _ in range(3):
            page = browser.new_page()
            page.goto(url)
            while not (
                painted := page.evaluate("performance.getEntriesByName('first-contentful-paint').map(p => p.startTime)")
            ):
                time.sleep(0.02)
            paints.append(painted[0])
            page.close()
        browser.close()
    return float(statistics.median(paints))


def measure(server: Server, long_run: str) -> Iterator[tuple[str, str]]:
    """Names and values of what is measured."""
    with httpx.Client(base_url=server.address.url, timeout=600, trust_env=False) as client:
        began = time.perf_counter()
        client.get("/")
        yield "list, first time (index made)", f"{time.perf_counter() - began:.1f} s"
        while re.search(r"runs is not read yet", client.get("/search?q=zzz").text) or server.app.state.index.unread():
            time.sleep(0.2)
        yield "text of all runs taken in after", f"{time.perf_counter() - began:.1f} s"
        for name, path in (
            ("list", "/"),
            ("list, filtered and sorted", "/?arm=llm&sort=brier&down=0"),
            ("search, a rare phrase", '/search?q="kandor+nurse+kandor"'),
            ("search, a word of every event", "/search?q=velora"),
            ("long run's page", f"/run/{long_run}"),
            ("a hundred of its events", f"/run/{long_run}/events?from=5001"),
        ):
            client.get(path)
            wall, processor = median_ms(lambda path=path: client.get(path))  # type: ignore[misc]
            yield f"{name}, server", f"{wall:.0f} ms ({processor:.0f} ms of the processor)"
    yield "long run's page, first paint", f"{first_paint_ms(f'{server.address.url}run/{long_run}'):.0f} ms"


def main() -> None:
    """Generate, serve, measure, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=1000)
    parser.add_argument("--events", type=int, default=10_000)
    given = parser.parse_args()
    rng = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for number in range(given.runs - 1):
            make_run(root, f"run-{number:04}", 50, rng)
        make_run(root, "long", given.events, rng)
        server = Server(root, port=0)
        thread = threading.Thread(target=server.serve)
        thread.start()
        try:
            print(f"| {given.runs:,} runs, one of them of {given.events:,} events | |\n|---|---|")
            for name, value in measure(server, "long"):
                print(f"| {name} | {value} |", flush=True)
        finally:
            server.stop()
            thread.join()


if __name__ == "__main__":
    main()
