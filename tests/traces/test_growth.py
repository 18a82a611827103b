"""A long run stays cheap: every event costs the same, and the list of runs reads only what it needs."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from marple.traces import RunFolder, list_runs

COUNT = 10_000


@pytest.fixture
def long_run() -> Iterator[RunFolder]:
    """A run folder in memory where there is such a place: ten thousand syncs to a disk measure the disk."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as root, RunFolder.create(Path(root), "long", {}) as folder:
        folder.append("run_start", {})
        yield folder


def test_ten_thousand_events_cost_the_same_each(long_run: RunFolder) -> None:
    run = long_run
    log = run.path / "events.jsonl"
    payload = {"text": "x" * 200, "turn": {"usage": {"gen_ai.usage.input_tokens": 100_000}}}
    sizes, times = [log.stat().st_size], [time.process_time()]
    for number in range(1, COUNT + 1):
        run.append("tool_call", payload)
        if number % (COUNT // 4) == 0:
            sizes.append(log.stat().st_size)
            times.append(time.process_time())
    grown = [after - before for before, after in zip(sizes, sizes[1:], strict=False)]
    spent = [after - before for before, after in zip(times, times[1:], strict=False)]

    assert max(grown) - min(grown) < COUNT  # one more digit in the ids, nothing else
    assert spent[-1] < 3 * spent[0] + 0.2

    start = time.process_time()
    reader = RunFolder.open(run.path)
    assert len(reader.events()) == COUNT + 1
    whole = time.process_time() - start
    run.append("plan", {"text": "new"})
    start = time.process_time()
    assert reader.events()[-1].payload == {"text": "new"}
    assert time.process_time() - start < whole / 10 + 0.01  # only the new line was parsed
    assert whole < 3


def test_listing_does_not_read_whole_logs(run: RunFolder) -> None:
    for _ in range(300):
        run.append("tool_call", {"text": "x" * 200})
    log = run.path / "events.jsonl"
    data = bytearray(log.read_bytes())
    data[1000:1100] = b"?" * 100  # broken in the middle: whoever reads it all must fail
    log.write_bytes(data)

    assert [(summary.status, summary.problem) for summary in list_runs(run.path.parent)] == [("running", None)]


def test_a_trace_is_read_without_the_heavy_libraries(run: RunFolder) -> None:
    code = (
        "import sys; from pathlib import Path; from marple.traces import RunFolder, list_runs\n"
        "assert RunFolder.open(Path(sys.argv[1])).events() and list_runs(Path(sys.argv[1]).parent)\n"
        "heavy = {'torch', 'transformers', 'langgraph', 'numpy', 'pydantic', 'marple.tools'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(run.path)], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


def test_a_thousand_runs_list_quickly(tmp_path: Path, run: RunFolder) -> None:
    for number in range(1000):
        folder = tmp_path / "many" / f"run-{number}"
        folder.mkdir(parents=True)
        for name in ("run.json", "events.jsonl"):
            (folder / name).write_bytes((run.path / name).read_bytes())
    start = time.process_time()
    assert len(list_runs(tmp_path / "many")) == 1000
    assert time.process_time() - start < 3
