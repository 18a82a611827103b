"""Whatever a worker sends or does, the host gets a typed error, stays small, and leaves no process behind."""

from __future__ import annotations

import asyncio
import os
import resource
import sys
import time
from pathlib import Path

import pytest

from marple.errors import (
    SandboxError,
    UnknownNameError,
    WireError,
    WorkerDiedError,
    WorkerTimeoutError,
)
from marple.sandboxes import Limits, StagedTarget, Worker, start_worker
from marple.sandboxes.process import ProcessBackend


@pytest.fixture
def staged(tmp_path: Path) -> StagedTarget:
    return StagedTarget(tmp_path, tmp_path / "target")


async def start(hostile: Path, how: str, staged: StagedTarget) -> Worker:
    backend = ProcessBackend(command=(sys.executable, "-I", str(hostile), how))
    return await start_worker(staged, backend=backend, limits=Limits(start_seconds=20))


def children() -> set[int]:
    """Processes of this one's, zombies included."""
    return {
        int(entry.name)
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and f"PPid:\t{os.getpid()}\n" in _status(entry)
    }


def _status(entry: Path) -> str:
    try:
        return (entry / "status").read_text()
    except OSError:
        return ""


def running(group: int) -> list[str]:
    """Processes of a group; not those that only wait for init to reap them."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (status := _status(entry)) and "State:\tZ" not in status:
            stat = (entry / "stat").read_text() if (entry / "stat").exists() else ""
            found += [entry.name] if stat.rpartition(")")[2].split()[2:3] == [str(group)] else []
    return found


@pytest.mark.parametrize(
    "how",
    [
        "oversized",
        "zero_length",
        "not_json",
        "not_utf8",
        "nan",
        "duplicate_key",
        "deep",
        "long_number",
        "unknown_id",
        "no_answer_in_it",
        "both",
        "unknown_code",
        "long_message",
        "extra_key",
        "wrong_type",
        "not_a_result",
        "not_base64",
        "path_as_name",
        "request_to_host",
        "progress_and_answer",
        "progress_without_total",
        "progress_below_zero",
        "progress_with_a_book",
        "progress_in_colour",
        "progress_of_nothing",
        "progress_flood",
    ],
)
async def test_breaking_the_protocol_ends_the_worker(how: str, hostile: Path, staged: StagedTarget) -> None:
    async with await start(hostile, how, staged) as worker:
        first, second = (asyncio.create_task(worker.call("x", {}, seed=0, timeout=10)) for _ in range(2))
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [WireError] * 2
        assert worker.ended is not None
        assert worker.ended.kind == "protocol"
    assert worker.pid not in children()


@pytest.mark.parametrize("how", ["two_answers", "progress_after_answer"])
async def test_an_answer_is_the_last_that_is_heard_of_a_call(how: str, hostile: Path, staged: StagedTarget) -> None:
    async with await start(hostile, how, staged) as worker:
        assert (await worker.call("x", {}, seed=0)).text == "fine"
        with pytest.raises(WireError):
            await worker.call("x", {}, seed=0, timeout=10)


async def test_silence_is_a_timeout_for_every_outstanding_call(hostile: Path, staged: StagedTarget) -> None:
    async with await start(hostile, "silent", staged) as worker:
        slow = asyncio.create_task(worker.call("x", {}, seed=0, timeout=0.3))
        behind = asyncio.create_task(worker.call("x", {}, seed=0))
        outcomes = await asyncio.gather(slow, behind, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [WorkerTimeoutError] * 2
        assert "x gave no answer in 0.3 s" in str(outcomes[0])
        assert worker.ended is not None
        assert worker.ended.kind == "timeout"
        with pytest.raises(WorkerTimeoutError):
            await worker.call("x", {}, seed=0)
    assert worker.pid not in children()


async def test_each_call_has_its_own_clock(hostile: Path, staged: StagedTarget) -> None:
    async with await start(hostile, "silent", staged) as worker:
        first = asyncio.create_task(worker.call("x", {}, seed=0, timeout=20))
        second = asyncio.create_task(worker.call("x", {}, seed=0, timeout=0.3))
        outcomes = await asyncio.gather(first, second, return_exceptions=True)
        assert [str(outcome).split(";")[0] for outcome in outcomes] == ["x gave no answer in 0.3 s"] * 2


async def test_progress_is_no_answer_and_buys_no_time(hostile: Path, staged: StagedTarget) -> None:
    heard: list[tuple[int, int, str]] = []
    async with await start(hostile, "slow_progress", staged) as worker:
        with pytest.raises(WorkerTimeoutError):
            await worker.call("x", {}, seed=0, timeout=0.5, on_progress=lambda *progress: heard.append(progress))
    assert set(heard) == {(1, 2, "x")}


async def test_a_cancelled_call_still_has_to_end_in_time(hostile: Path, staged: StagedTarget) -> None:
    async with await start(hostile, "silent", staged) as worker:
        call = asyncio.create_task(worker.call("x", {}, seed=0, timeout=0.3))
        await asyncio.sleep(0.1)
        call.cancel()
        with pytest.raises(WorkerTimeoutError):
            await worker.call("x", {}, seed=0, timeout=20)
        assert call.cancelled()


async def test_an_answer_to_a_cancellation_says_nothing(hostile: Path, staged: StagedTarget) -> None:
    async with await start(hostile, "cancels_nothing", staged) as worker:
        first, second = (asyncio.create_task(worker.call("x", {}, seed=0, timeout=10)) for _ in range(2))
        await asyncio.sleep(0.1)
        first.cancel()
        with pytest.raises(WireError):
            await second


@pytest.mark.parametrize("how", ["torn", "closes_channel"])
async def test_an_end_without_an_answer_is_death(how: str, hostile: Path, staged: StagedTarget) -> None:
    async with await start(hostile, how, staged) as worker:
        start_time = time.monotonic()
        with pytest.raises(WorkerDiedError):
            await worker.call("x", {}, seed=0, timeout=20)
        assert time.monotonic() - start_time < 3


async def test_a_child_that_keeps_the_pipes_open_hides_nothing(hostile: Path, staged: StagedTarget) -> None:
    async with await start(hostile, "leaves_child", staged) as worker:
        assert (await worker.call("x", {}, seed=0)).text == "fine"
        group = worker.pid or 0
        with pytest.raises(WorkerDiedError, match="status 5"):
            await worker.call("x", {}, seed=0, timeout=20)
    await asyncio.sleep(0.2)
    assert running(group) == []


async def test_a_flood_on_stderr_is_drained_and_its_end_kept(hostile: Path, staged: StagedTarget) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with await start(hostile, "flood", staged) as worker:
        assert (await worker.call("x", {}, seed=0, timeout=30)).text == "fine"
        with pytest.raises(WorkerTimeoutError):
            await worker.call("x", {}, seed=0, timeout=0.3)
        assert worker.ended is not None
        assert len(worker.ended.diagnostics) <= 64 * 1024
        assert worker.ended.diagnostics.endswith("the end of it")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 30_000, "KiB"


async def test_a_program_that_ends_at_once_is_death_with_its_last_words(staged: StagedTarget) -> None:
    backend = ProcessBackend(command=(sys.executable, "-I", "-c", "raise SystemExit('no room today')"))
    with pytest.raises(WorkerDiedError, match="status 1") as caught:
        await start_worker(staged, backend=backend)
    assert "no room today" in caught.value.__notes__[0]


async def test_a_program_that_does_not_exist_is_a_typed_error(staged: StagedTarget) -> None:
    with pytest.raises(SandboxError, match="could not be started"):
        await start_worker(staged, backend=ProcessBackend(command=("/nonexistent",)))


async def test_a_memory_limit_is_set_from_outside_and_stamped(hostile: Path, staged: StagedTarget) -> None:
    backend = ProcessBackend(command=(sys.executable, "-I", str(hostile), "silent"))
    async with await start_worker(staged, backend=backend, limits=Limits(memory_gib=2)) as worker:
        assert worker.stamp["rlimits"]["as"] == 2 * 2**30
        limits = Path(f"/proc/{worker.pid}/limits").read_text()
        assert f"{2 * 2**30}" in next(line for line in limits.splitlines() if line.startswith("Max address space"))


async def test_an_unknown_backend_is_named(staged: StagedTarget) -> None:
    with pytest.raises(UnknownNameError, match="'proces'; did you mean process"):
        await start_worker(staged, backend="proces")


async def test_a_start_that_takes_too_long_or_is_cancelled_leaves_nothing(staged: StagedTarget) -> None:
    backend = ProcessBackend(command=(sys.executable, "-I", "-c", "import time; time.sleep(600)"))
    before = children()
    with pytest.raises(WorkerTimeoutError):
        await start_worker(staged, backend=backend, limits=Limits(start_seconds=0.3))
    starting = asyncio.create_task(start_worker(staged, backend=backend))
    await asyncio.sleep(0.2)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert children() <= before


async def test_twenty_starts_and_stops_leave_no_process_and_no_descriptor(hostile: Path, staged: StagedTarget) -> None:
    processes, descriptors = children(), len(list(Path("/proc/self/fd").iterdir()))
    for batch in range(5):
        workers = await asyncio.gather(*(start(hostile, "silent", staged) for _ in range(4)))
        calls = [asyncio.create_task(worker.call("x", {}, seed=0)) for worker in workers]
        await asyncio.sleep(0.01 * batch)
        await asyncio.gather(*(worker.close() for worker in workers))
        outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert {type(outcome) for outcome in outcomes} == {WorkerDiedError}
    assert children() <= processes
    assert len(list(Path("/proc/self/fd").iterdir())) <= descriptors


async def test_closing_from_two_places_at_once_is_fine(hostile: Path, staged: StagedTarget) -> None:
    worker = await start(hostile, "silent", staged)
    await asyncio.gather(worker.close(), worker.close())
    assert worker.ended is not None
    assert worker.ended.kind == "closed"
