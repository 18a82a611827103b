"""What the trace store costs: appending synced events, reading a long run, listing many runs."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

from marple.traces import RunFolder, list_runs

PAYLOAD = {
    "tool": "chat",
    "status": "ok",
    "text": "reply " * 300,
    "cost": {"prompt_tokens": 40, "generated_tokens": 64},
}
EVENTS, RUNS = 10_000, 1_000


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def write(root: Path) -> Path:
    with RunFolder.create(root, "long", {"case": "benchmark", "investigator": "none"}) as run:
        run.append("run_start", {})
        for _ in range(EVENTS):
            run.append("tool_call", PAYLOAD)
    return run.path


def many(root: Path) -> None:
    with RunFolder.create(root, "run-0", {"case": "benchmark", "investigator": "none"}) as run:
        run.append("run_start", {})
        run.write_result({"status": "submitted", "scores": {}})
    for number in range(1, RUNS):
        shutil.copytree(run.path, root / f"run-{number}")


def main() -> None:
    table = Table("what", "seconds", "each", title="Traces")
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        spent = seconds(lambda: write(root / "one"))
        size = (root / "one" / "long" / "events.jsonl").stat().st_size / EVENTS
        table.add_row(
            f"append {EVENTS:,} synced events", f"{spent:.2f}", f"{spent / EVENTS * 1e6:.0f} us, {size:.0f} B"
        )
        spent = seconds(lambda: RunFolder.open(root / "one" / "long").events())
        table.add_row(f"read {EVENTS:,} events", f"{spent:.2f}", f"{spent / EVENTS * 1e6:.0f} us")
        many(root / "many")
        spent = seconds(lambda: list_runs(root / "many"))
        table.add_row(f"list {RUNS:,} runs", f"{spent:.2f}", f"{spent / RUNS * 1e6:.0f} us")
    Console().print(table)


if __name__ == "__main__":
    main()
