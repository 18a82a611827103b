"""A real worker process on a tiny model: calls, errors, what it can see."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from marple.errors import SandboxError, TargetRefusedError, ToolError, WorkerDiedError
from marple.sandboxes import Limits, StagedTarget, Worker, backends, stage, start_worker

pytestmark = pytest.mark.asyncio(loop_scope="module")
CANARY = "sk-ant-canary-4711"
LIMITS = Limits(threads=1, device="cpu", file_mib=16)


@pytest.fixture(scope="module")
def staged(models: Path, plugin: Path) -> Iterator[StagedTarget]:
    with stage(models / "first", reference=models / "second", plugins=[plugin]) as staged:
        yield staged


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(staged: StagedTarget) -> AsyncIterator[Worker]:
    os.environ["ANTHROPIC_API_KEY"] = CANARY
    try:
        worker = await start_worker(staged, limits=LIMITS)
    finally:
        del os.environ["ANTHROPIC_API_KEY"]
    async with worker:
        yield worker
    assert worker.ended is not None
    assert worker.ended.kind == "closed"
    assert is_gone(worker.pid)


def is_gone(pid: int | None) -> bool:
    """Neither running nor a zombie."""
    return not Path(f"/proc/{pid}").exists()


def is_running(pid: int) -> bool:
    """Alive; a zombie that init has still to reap is not."""
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" not in status.read_text()


async def test_hello_tells_what_can_be_done_to_which_target(worker: Worker) -> None:
    echo = worker.tools["echo"]
    assert echo.rung == 1
    assert echo.parallel
    assert echo.parameters["required"] == ["text"]
    assert worker.facts["layers"] == 2
    assert worker.facts["device"] == "cpu"
    assert len(worker.facts["weights_sha256"]) == 64
    assert worker.has_reference


async def test_a_call_comes_back_whole(worker: Worker) -> None:
    result = await worker.call("echo", {"text": "héllo \u2028 [[\U0001f980"}, seed=7)
    assert result.text == "héllo \u2028 [[\U0001f980"
    assert result.data == {"seed": 7, "vocab": worker.facts["vocab"], "pair": [1, 2]}
    assert result.controls == {"none": None}
    assert result.artifacts[0].data == b"\x00\xff"
    assert result.handles == ("v1",)
    assert (result.cost.prompt_tokens, result.cost.generated_tokens) == (3, 4)


async def test_outstanding_calls_each_get_their_own_answer(worker: Worker) -> None:
    calls = [worker.call("echo", {"text": str(number)}, seed=number) for number in range(100)]
    results = await asyncio.gather(*calls)
    assert [result.text for result in results] == [str(number) for number in range(100)]


async def test_a_refusal_reaches_the_caller_as_tool_error(worker: Worker) -> None:
    with pytest.raises(ToolError, match="another word"):
        await worker.call("fail", {"how": "refuse"}, seed=0)
    with pytest.raises(ToolError, match="text"):
        await worker.call("echo", {"txt": "x"}, seed=0)
    with pytest.raises(ToolError, match="there is no tool 'ech'"):
        await worker.call("ech", {}, seed=0)


@pytest.mark.parametrize("argument", [float("nan"), "\ud800", "x" * 9_000_000], ids=["nan", "surrogate", "size"])
async def test_arguments_that_cannot_travel_are_the_callers_fault(worker: Worker, argument: object) -> None:
    with pytest.raises(ToolError):
        await worker.call("echo", {"text": argument}, seed=0)


@pytest.mark.parametrize(
    ("how", "code"),
    [
        ("bug", "internal"),
        ("memory", "out_of_memory"),
        ("large", "result_too_large"),
        ("nan", "internal"),
        ("artifact", "internal"),
    ],
)
async def test_a_failing_tool_leaves_the_worker_alive(worker: Worker, how: str, code: str) -> None:
    with pytest.raises(SandboxError, match=code) as caught:
        await worker.call("fail", {"how": how}, seed=0)
    assert "/home" not in str(caught.value)
    assert worker.ended is None
    assert (await worker.call("echo", {"text": "still here"}, seed=0)).text == "still here"


async def test_a_message_that_is_not_text_still_arrives(worker: Worker) -> None:
    with pytest.raises(ToolError):
        await worker.call("fail", {"how": "surrogate"}, seed=0)


async def test_self_tests_report_what_failed(worker: Worker) -> None:
    outcomes = {outcome.name: outcome for outcome in await worker.self_test()}
    assert outcomes["echo"].ok
    assert not outcomes["wait"].ok
    assert "2 expected, 3 found" in outcomes["wait"].message
    assert "/home" not in outcomes["wait"].message
    assert not outcomes["fail"].ok


async def test_a_cancelled_call_does_not_confuse_later_ones(worker: Worker) -> None:
    slow = asyncio.create_task(worker.call("wait", {"seconds": 0.3}, seed=0))
    later = asyncio.create_task(worker.call("echo", {"text": "later"}, seed=0))
    await asyncio.sleep(0.05)
    slow.cancel()
    assert (await later).text == "later"
    with pytest.raises(asyncio.CancelledError):
        await slow
    assert (await worker.call("echo", {"text": "after"}, seed=0)).text == "after"


async def test_time_spent_behind_other_calls_does_not_count(worker: Worker) -> None:
    first = worker.call("wait", {"seconds": 0.6}, seed=0)
    second = worker.call("wait", {"seconds": 0.01}, seed=0, timeout=0.5)
    assert [result.text for result in await asyncio.gather(first, second)] == ["slept 0.6", "slept 0.01"]


async def test_the_worker_sees_nothing_of_the_host(worker: Worker, staged: StagedTarget) -> None:
    seen = (await worker.call("inside", {}, seed=0)).data
    assert seen["initial_environ"] == ""
    assert CANARY not in str(seen)
    # What Python itself and the worker set; nothing was inherited.
    allowed = ("LC_CTYPE", "HF_", "TRANSFORMERS_", "TOKENIZERS_", "TORCH", "OMP_", "MKL_", "KMP_")
    assert [name for name in seen["environ"] if not name.startswith(allowed)] == []
    assert seen["arguments"].split("\0")[1:] == ["-I", "-B", "-m", "marple.tools.worker", str(staged.root), ""]
    assert seen["directory"] == str(staged.root)
    assert seen["session"]
    assert seen["umask"] == 0o077


async def test_the_worker_holds_only_its_own_descriptors(worker: Worker) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        seen = (await worker.call("inside", {}, seed=0)).data["descriptors"]
    finally:
        os.close(reader)
        os.close(writer)
    assert seen["0"] == "/dev/null"
    assert seen["1"] == seen["2"]
    pipes = {target for target in seen.values() if target.startswith("pipe:")}
    assert len(pipes) == 3, "requests, replies, diagnostics"
    assert not [target for target in seen.values() if target.startswith("socket:")]
    others = [target for target in seen.values() if not target.startswith(("pipe:", "anon_inode:", "/dev/null"))]
    assert [target for target in others if not target.startswith(("/proc/", "/dev/"))] == []


async def test_what_is_printed_never_ends_up_in_a_reply(worker: Worker) -> None:
    await worker.call("inside", {}, seed=0)
    assert worker.ended is None


async def test_the_stamp_claims_no_more_than_there_is(worker: Worker) -> None:
    assert worker.stamp["backend"] == "process"
    assert worker.stamp["isolation"] == "reduced"
    assert worker.stamp["network"] == "not blocked"
    assert not worker.stamp["landlock"]
    assert not worker.stamp["seccomp"]
    assert worker.stamp["rlimits"] == {"core": 0, "fsize": 16 * 2**20, "nofile": 512}
    limits = Path(f"/proc/{worker.pid}/limits").read_text()
    assert f"{16 * 2**20}" in next(line for line in limits.splitlines() if line.startswith("Max file size"))
    assert worker.stamp["worker"]["threads"] == 1
    assert backends()["process"].available


async def test_a_killed_worker_is_a_typed_event_and_leaves_nothing(staged: StagedTarget) -> None:
    worker = await start_worker(staged, limits=LIMITS)
    calls = [asyncio.create_task(worker.call("wait", {"seconds": 60}, seed=0)) for _ in range(3)]
    await asyncio.sleep(0.1)
    start = time.monotonic()
    os.kill(worker.pid or 0, signal.SIGKILL)
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    assert time.monotonic() - start < 1
    assert [type(outcome) for outcome in outcomes] == [WorkerDiedError] * 3
    assert "SIGKILL" in str(outcomes[0])
    assert worker.ended is not None
    assert (worker.ended.kind, worker.ended.status) == ("died", -9)
    assert is_gone(worker.pid)
    with pytest.raises(WorkerDiedError):
        await worker.call("echo", {"text": "x"}, seed=0)
    await worker.close()
    await worker.close()
    assert worker.ended.kind == "died"


async def test_a_target_that_cannot_be_loaded_is_refused_by_name(staged: StagedTarget, tmp_path: Path) -> None:
    (tmp_path / "target").mkdir()
    with pytest.raises(TargetRefusedError, match=r"config\.json"):
        await start_worker(StagedTarget(tmp_path, tmp_path / "target"), limits=LIMITS)


HOST = """
import asyncio, sys
from pathlib import Path
from marple.sandboxes import Limits, StagedTarget, start_worker

async def main():
    root = Path(sys.argv[1])
    worker = await start_worker(StagedTarget(root, root / "target"), limits=Limits(threads=1, device="cpu"))
    print(worker.pid, flush=True)
    await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_the_worker_goes_when_its_host_is_killed(staged: StagedTarget) -> None:
    host = await asyncio.create_subprocess_exec(
        sys.executable, "-c", HOST, str(staged.root), stdout=asyncio.subprocess.PIPE
    )
    assert host.stdout is not None
    pid = int(await host.stdout.readline())
    assert is_running(pid)
    host.kill()
    await host.wait()
    deadline = time.monotonic() + 2
    while is_running(pid) and time.monotonic() < deadline:
        await asyncio.sleep(0.02)
    assert not is_running(pid)
