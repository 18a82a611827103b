"""A long run stays cheap: every event costs the same, and the list of runs reads only what it needs."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType

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


def work(do: Callable[[], object]) -> int:
    """How much is done, in calls of Python functions and built-ins: unlike time, the same on a busy machine."""
    calls = 0

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal calls
        calls += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        do()
    finally:
        sys.setprofile(None)
    return calls


def test_ten_thousand_events_cost_the_same_each(long_run: RunFolder) -> None:
    run = long_run
    log = run.path / "events.jsonl"
    payload = {"text": "x" * 200, "turn": {"usage": {"gen_ai.usage.input_tokens": 100_000}}}

    def append(count: int) -> None:
        for _ in range(count):
            run.append("tool_call", payload)

    size = log.stat().st_size
    early = work(lambda: append(100))
    early_bytes = log.stat().st_size - size
    append(COUNT - 200)
    size = log.stat().st_size
    late = work(lambda: append(100))
    late_bytes = log.stat().st_size - size

    assert late_bytes - early_bytes < 100 * 10  # longer ids, nothing else
    assert late < 1.1 * early

    reader = RunFolder.open(run.path)
    whole = work(lambda: reader.events())
    assert len(reader.events()) == COUNT + 1
    run.append("plan", {"text": "new"})
    assert work(lambda: reader.events()) < whole / 100  # only the new line was parsed
    assert reader.events()[-1].payload == {"text": "new"}


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


def test_a_thousand_runs_cost_the_same_each(tmp_path: Path, run: RunFolder) -> None:
    costs = []
    for count in (100, 1000):
        for number in range(count):
            folder = tmp_path / str(count) / f"run-{number}"
            folder.mkdir(parents=True)
            for name in ("run.json", "events.jsonl"):
                (folder / name).write_bytes((run.path / name).read_bytes())
        assert len(list_runs(tmp_path / str(count))) == count
        costs.append(work(functools.partial(list_runs, tmp_path / str(count))) / count)
    assert costs[1] < 1.5 * costs[0]  # sorting grows a little faster than the list
    assert costs[1] < 500
