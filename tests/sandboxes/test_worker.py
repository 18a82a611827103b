"""A real worker process on a tiny model: calls, errors, what it can see."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest
import pytest_asyncio

from marple.errors import SandboxError, TargetRefusedError, ToolError, WorkerDiedError
from marple.sandboxes import Limits, StagedTarget, Worker, backends, stage, start_worker
from marple.sandboxes.inside import landlock
from marple.tools import messages, wire

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
        worker = await start_worker(staged, backend="process", limits=LIMITS)
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
        ("exit", "internal"),
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


async def test_calls_run_beside_each_other(worker: Worker) -> None:
    start = time.monotonic()
    await asyncio.gather(*(worker.call("wait", {"seconds": 0.5}, seed=0) for _ in range(16)))
    assert time.monotonic() - start < 16 * 0.5 / 2


async def test_what_a_call_yields_does_not_depend_on_its_company(worker: Worker) -> None:
    arguments = {"messages": [{"role": "user", "content": "who is it"}], "samples": 3, "max_new_tokens": 8}
    alone = [(await worker.call("chat", arguments, seed=seed)).data for seed in range(16)]
    order = [5, 11, 0, 14, 3, 9, 1, 15, 7, 2, 13, 6, 10, 4, 12, 8]
    long = {**arguments, "samples": 500, "max_new_tokens": 200}
    doomed = [asyncio.create_task(worker.call("chat", long, seed=seed)) for seed in range(3)]
    calls = [asyncio.create_task(worker.call("chat", arguments, seed=seed, fresh=True)) for seed in order]
    await asyncio.sleep(0.05)
    for call in doomed:
        call.cancel()
    together = await asyncio.gather(*calls)
    assert {seed: result.data for seed, result in zip(order, together, strict=True)} == dict(enumerate(alone))
    assert alone[0] != alone[1]


async def test_progress_arrives_in_order_and_not_too_often(worker: Worker) -> None:
    heard: list[tuple[int, int, str]] = []
    result = await worker.call(
        "steps", {"count": 60, "seconds": 0.02}, seed=0, on_progress=lambda *progress: heard.append(progress)
    )
    assert result.text == "done\none note\nanother note"
    done = [progress[0] for progress in heard]
    assert done == sorted(done)
    assert done[0] == 0
    assert 3 <= len(done) <= 1.2 / 0.2 + 4, "five a second, on a machine that may be slow"
    assert {progress[1:] for progress in heard} == {(60, "steps")}


def fail_to_listen(done: int, total: int, what: str) -> None:
    raise ZeroDivisionError


async def test_a_listener_that_fails_harms_no_call(worker: Worker) -> None:
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
    try:
        result = await worker.call("steps", {"count": 2}, seed=0, on_progress=fail_to_listen)
    finally:
        asyncio.get_running_loop().set_exception_handler(None)
    assert result.text.startswith("done")
    assert isinstance(faults[0], ZeroDivisionError)
    assert worker.ended is None


async def test_cancelling_ends_the_call_and_leaves_the_others_alone(worker: Worker) -> None:
    expected = (await worker.call("steps", {"count": 30}, seed=5)).data
    started = asyncio.Event()
    long = {"count": 10_000, "seconds": 0.01}
    doomed = [
        asyncio.create_task(worker.call("steps", long, seed=0, on_progress=lambda *_: started.set())) for _ in range(64)
    ]
    await started.wait()
    for call in doomed[1:]:
        call.cancel()
    # With 63 calls of 100 s each in its 64 threads, the worker answers these only because it has dropped them.
    kept = await asyncio.gather(*(worker.call("steps", {"count": 30}, seed=5, timeout=20) for _ in range(64)))
    assert [result.data for result in kept] == [expected] * 64
    assert [call.cancelled() for call in doomed[1:]] == [True] * 63
    assert not doomed[0].done()
    doomed[0].cancel()


def raw_requests(*requests: dict[str, Any]) -> bytes:
    return b"".join(wire.encode_frame({"id": f"{number:032x}", **one}) for number, one in enumerate(requests))


async def test_cancellations_on_the_wire(staged: StagedTarget) -> None:
    """Unknown calls and calls cancelled twice are harmless; every request gets exactly one answer."""
    command = [sys.executable, "-I", "-B", "-m", "marple.tools.worker", str(staged.root)]
    config = {"target": "target", "plugins": ["tools/tool_0.py"], "device": "cpu", "threads": 1}
    call = {"op": "call", "tool": "steps", "arguments": {"count": 10_000, "seconds": 0.01}, "seed": 0}
    early = raw_requests({"op": "cancel", "call": "f" * 32}, call, {"op": "hello", "config": config})
    with subprocess.Popen(command, env={}, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(early)
        process.stdin.flush()
        replies = cast(BinaryIO, process.stdout)
        first = {reply["id"][-1]: reply for reply in (wire.read_frame(replies) or {} for _ in range(3))}
        assert first["0"]["ok"] == {}
        assert first["1"]["error"]["code"] == "bad_request"
        assert first["2"]["ok"]["protocol"] == messages.PROTOCOL
        cancel = {"op": "cancel", "call": f"{4:032x}"}
        nothing = {"op": "cancel", "call": "e" * 32}
        process.stdin.write(raw_requests(nothing, nothing, nothing, call, call, cancel, cancel, nothing))
        process.stdin.flush()
        answers: dict[str, Any] = {}
        while len(answers) < 7:
            reply = wire.read_frame(replies) or {}
            if "progress" not in reply:
                assert reply["id"] not in answers
                answers[reply["id"]] = reply.get("ok", reply.get("error"))
        assert answers.pop(f"{4:032x}")["code"] == "cancelled"
        assert list(answers.values()) == [{}] * 6
        process.kill()


async def test_a_replication_is_marked_as_one(worker: Worker) -> None:
    assert not (await worker.call("steps", {"count": 1}, seed=0)).data["fresh"]
    assert (await worker.call("steps", {"count": 1}, seed=0, fresh=True)).data["fresh"]


async def test_self_tests_say_how_far_they_are(worker: Worker) -> None:
    heard: list[tuple[int, int, str]] = []
    outcomes = await worker.self_test(on_progress=lambda *progress: heard.append(progress))
    assert {progress[1:] for progress in heard} == {(len(outcomes), "self-tests")}
    assert {"search_transcripts", *worker.tools} <= {outcome.name for outcome in outcomes}


async def test_tools_whose_needs_are_not_met_are_not_offered(worker: Worker) -> None:
    assert not {"with_sae", "with_corpus"} & set(worker.tools)


async def test_the_worker_sees_nothing_of_the_host(worker: Worker, staged: StagedTarget) -> None:
    seen = (await worker.call("inside", {}, seed=0)).data
    assert CANARY not in str(seen)
    assert Path(f"/proc/{worker.pid}/environ").read_bytes() == b""
    # What it is told, and what the worker sets; nothing was inherited.
    allowed = ("LC_CTYPE", "HF_", "TRANSFORMERS_", "TOKENIZERS_", "TORCH", "OMP_", "MKL_", "KMP_", "MPLCONFIGDIR")
    told = {
        "PATH": "/usr/bin:/bin",
        "HOME": f"{staged.root}/cache",
        "TMPDIR": f"{staged.root}/cache",
        "LANG": "C.UTF-8",
    }
    assert {name: value for name, value in seen["environ"].items() if not name.startswith(allowed)} == told
    assert seen["directory"] == str(staged.root)
    assert seen["session"]
    assert seen["umask"] == 0o077


async def test_the_worker_reads_what_it_runs_from_and_nothing_else(worker: Worker, staged: StagedTarget) -> None:
    import marple
    import marple.tasks

    elsewhere = staged.root.with_name("elsewhere")
    elsewhere.mkdir()
    (elsewhere / "secret").write_text("x")
    recipe = next(Path(marple.tasks.__path__[0]).rglob("*.yaml"))
    hidden = ["/etc/passwd", "/", str(Path.home()), str(elsewhere / "secret"), str(recipe), "/proc/self/environ"]
    hidden += [f"/proc/{os.getpid()}/environ", "/proc/self/mountinfo", "/tmp", __file__]
    shown = [str(staged.root / "target" / "config.json"), "/proc/cpuinfo", os.__file__, marple.tools.__path__[0]]
    try:
        seen = (await worker.call("open_each", {"paths": [*hidden, *shown]}, seed=0)).data
    finally:
        (elsewhere / "secret").unlink()
        elsewhere.rmdir()
    assert {path: seen[path] for path in hidden} == dict.fromkeys(hidden, "Permission denied")
    assert {path: seen[path] for path in shown} == dict.fromkeys(shown, "")


async def test_the_worker_holds_only_its_own_descriptors(worker: Worker) -> None:
    reader, writer = os.pipe()
    os.set_inheritable(writer, True)
    try:
        links = list(Path(f"/proc/{worker.pid}/fd").iterdir())
    finally:
        os.close(reader)
        os.close(writer)
    seen = {link.name: str(link.readlink()) for link in links}
    assert seen["0"] == "/dev/null"
    assert seen["1"] == seen["2"]
    pipes = {target for target in seen.values() if target.startswith("pipe:")}
    assert len(pipes) == 3, "requests, replies, diagnostics"
    assert not [target for target in seen.values() if target.startswith("socket:")]
    others = [target for target in seen.values() if not target.startswith(("pipe:", "anon_inode:", "/dev/null"))]
    # A plot that was drawn before leaves the fonts of matplotlib's package open.
    assert [target for target in others if not target.startswith(("/proc/", "/dev/", sys.prefix))] == []


async def test_what_is_printed_never_ends_up_in_a_reply(worker: Worker) -> None:
    await worker.call("inside", {}, seed=0)
    assert worker.ended is None


async def test_the_stamp_claims_no_more_than_there_is(worker: Worker) -> None:
    stamp = worker.stamp
    status = dict(line.split(":\t") for line in Path(f"/proc/{worker.pid}/status").read_text().splitlines())
    assert (stamp["backend"], stamp["isolation"], stamp["namespaces"]) == ("process", "reduced", [])
    assert stamp["network"] == "socket() denied"
    assert (stamp["filesystem"], stamp["landlock"]) == ("landlock", landlock.abi())
    assert (stamp["seccomp"], status["Seccomp"]) == ("allow-list", "2")
    assert (stamp["no_new_privs"], status["NoNewPrivs"]) == (True, "1")
    assert (stamp["capabilities"], int(status["CapEff"], 16), int(status["CapBnd"], 16)) == ("none", 0, 0)
    assert stamp["rlimits"] == {"core": 0, "fsize": 16 * 2**20, "nofile": 512}
    limits = Path(f"/proc/{worker.pid}/limits").read_text()
    assert f"{16 * 2**20}" in next(line for line in limits.splitlines() if line.startswith("Max file size"))
    assert stamp["worker"]["threads"] == 1
    assert backends(["process"])["process"].available


async def test_a_killed_worker_is_a_typed_event_and_leaves_nothing(staged: StagedTarget) -> None:
    worker = await start_worker(staged, backend="process", limits=LIMITS)
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
        await start_worker(StagedTarget(tmp_path, tmp_path / "target"), backend="process", limits=LIMITS)


HOST = """
import asyncio, sys
from pathlib import Path
from marple.sandboxes import Limits, StagedTarget, start_worker

async def main():
    root = Path(sys.argv[1])
    limits = Limits(threads=1, device="cpu")
    worker = await start_worker(StagedTarget(root, root / "target"), backend="process", limits=limits)
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
