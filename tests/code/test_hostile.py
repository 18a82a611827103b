"""Programs that mean harm: each ends as a result that says how, and the next one runs as if nothing had been."""

from __future__ import annotations

import asyncio
import time

import pytest

from marple.errors import SandboxError
from marple.sandboxes import Worker
from tests.code.conftest import Run, printed

pytestmark = pytest.mark.asyncio(loop_scope="module")

ENDS = {
    "an endless loop": ("while True: pass", "timed_out", "when its time was over"),
    "one that holds the interpreter's lock": ("import re\nre.match('(a+)+$', 'a' * 40 + 'b')", "timed_out", ""),
    "one that ignores signals": (
        "import signal, time\nfor n in range(1, 32):\n    try: signal.signal(n, signal.SIG_IGN)\n"
        "    except OSError: pass\ntime.sleep(99)",
        *("timed_out", ""),
    ),
    "a stopped process": ("import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)", "timed_out", ""),
    "exit": ("exit(3)", "exited", "(status 3)"),
    "sys.exit with words": ("import sys\nsys.exit('enough')", "exited", '("enough")'),
    "os._exit": ("import os\nos._exit(4)", "exited", "(status 4)"),
    "a segmentation fault": ("import ctypes\nctypes.string_at(0)", "crashed", "SIGSEGV"),
    "an abort": ("import os\nos.abort()", "crashed", "SIGABRT"),
    "its own death": ("import os\nos.kill(os.getpid(), 9)", "killed", "SIGKILL"),
    "the death of all it reaches": ("import os\nos.kill(-1, 9)\nprint('alive')", "finished", "alive"),
    "much memory": ("x = bytearray(8 * 2**30)", "raised", "4 GiB beside the model"),
    "much memory in a tensor": ("torch.ones(8 * 2**28)", "raised", "4 GiB beside the model"),
    "much output": ("while True: print('x' * 10_000)", "flooded", "more than 64 MiB"),
    "a large file": ("open('f', 'wb').write(bytes(49 * 2**20))", "raised", "48 MiB"),
    "many threads": (
        "import threading, time\nfor i in range(10_000): threading.Thread(target=time.sleep, args=(9,)).start()",
        *("raised", "can't start new thread"),
    ),
    "many descriptors": ("import os\nwhile True: os.open('/dev/null', 0)", "raised", "Too many open files"),
    "a look at the model's files": ("import os\nos.listdir(ROOT)", "raised", "PermissionError"),
    "a look at other files": (
        "open('/sbx/program.py') if 0 else __import__('os').listdir('/')",
        "raised",
        "Permission",
    ),
    "the network": ("import socket\nsocket.create_connection(('127.0.0.1', 9))", "raised", "PermissionError"),
}


@pytest.mark.parametrize("attack", ENDS)
async def test_a_program_ends_in_a_way_that_is_named(run: Run, attack: str) -> None:
    program, ended, said = ENDS[attack]
    result = await run(program.replace("ROOT", "'/sbx/root'"), timeout_seconds=3)
    assert result.data["ended"] == ended, result.text
    assert said in result.text


async def test_a_crash_shows_the_line_of_the_program(run: Run) -> None:
    result = await run("import ctypes\ndef crash():\n    ctypes.string_at(0)\ncrash()")
    assert '  File "code", line 3 in crash' in printed(result)
    assert printed(result)[-1] == '  File "code", line 4'
    assert not [line for line in printed(result) if "marple" in line or '"/' in line]


async def test_what_is_printed_is_kept_at_both_ends_and_counted(run: Run) -> None:
    result = await run("print('begin')\nprint('x' * 1_000_000)\nprint('end')")
    assert printed(result)[0] == "begin"
    assert printed(result)[-1] == "end"
    assert sum(map(len, printed(result))) < 66_000
    assert result.data["printed_bytes"] == 1_000_011
    assert "bytes left out" in "\n".join(printed(result))
    assert len(result.text) < 12_000
    assert "read_result shows them" in result.text


DAEMON = """
import os, time
def beat():
    while True:
        os.write(1, b"beat\\n")
        time.sleep(0.02)
if os.fork() == 0:
    os.setsid()
    for number in range(1, 32):
        try: __import__("signal").signal(number, 1)
        except OSError: pass
    if os.fork() == 0:
        beat()
    os._exit(0)
time.sleep(0.3)
print("the parent is done")
"""


@pytest.mark.parametrize("keep", [False, True])
async def test_what_detaches_itself_ends_or_stands_still_with_the_call(run: Run, keep: bool) -> None:
    result = await run(DAEMON, keep_state=keep)
    assert result.data["ended"] == "finished"
    assert "the parent is done" in printed(result)
    await asyncio.sleep(0.5)
    if keep:
        # Thawed for a moment: had it gone on meanwhile, there would be two dozen beats.
        assert printed(await run("1;", keep_state=True)).count("beat") < 15
        await run("exit()", keep_state=True)


async def test_a_fork_bomb_ends_with_its_time(run: Run) -> None:
    program = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    began = time.monotonic()
    result = await run(program, timeout_seconds=2)
    assert result.data["ended"] == "timed_out"
    assert time.monotonic() - began < 30


async def test_the_disk_of_a_call_is_bounded_and_empty_for_the_next(run: Run) -> None:
    program = """
import os
try:
    for number in range(100):
        with open(f"f{number}", "wb") as file: file.write(bytes(2**20))
except OSError as error:
    print(error.errno, number > 20)
os.symlink("/", "root"); os.mkfifo("pipe")
for depth in range(200):
    os.mkdir("d" * 200); os.chdir("d" * 200)
os.chmod(".", 0)
"""
    assert printed(await run(program, timeout_seconds=30)) == ["28 True"]


REACH = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
above = [os.getppid(), 1, 2, 3]
for pid in above:
    for number in (0, 9, 15, 19):
        try:
            os.kill(pid, number)
            print("signalled", pid)
        except OSError:
            pass
    if libc.ptrace(16, pid, 0, 0) == 0:
        print("traced", pid)
    for name in ("mem", "environ", "fd", "root"):
        if os.path.exists(f"/proc/{pid}/{name}"):
            try:
                os.open(f"/proc/{pid}/{name}", os.O_RDONLY)
                print("opened", pid, name)
            except OSError:
                pass
print("done")
"""


async def test_the_processes_above_are_out_of_reach(run: Run) -> None:
    assert printed(await run(REACH)) == ["done"]


async def test_forged_frames_land_in_the_programs_own_result(run: Run, code_worker: Worker) -> None:
    program = """
import json, os
body = json.dumps({"id": "0" * 32, "ok": {"text": "forged"}}).encode()
frame = len(body).to_bytes(4, "big") + body
for number in range(4096):
    try:
        os.write(number, frame)
        if number > 2: print("wrote to", number)
    except OSError:
        pass
"""
    result = await run(program)
    assert [line[-10:] for line in printed(result) if "wrote to" in line] == ["wrote to 3"]
    assert "the code wrote into the channel of save() itself" in result.text
    assert result.artifacts == ()
    assert code_worker.ended is None


SAYS = """
import base64, json, os
def send(**said):
    body = json.dumps(said).encode()
    data = len(body).to_bytes(4, "big") + body
    while data:
        data = data[os.write(3, data):]
def saved(name, kind, data):
    return {"name": name, "media_type": kind, "base64": base64.b64encode(data).decode()}
"""


@pytest.mark.parametrize(
    "lie",
    [
        "send(saved=saved('../x.txt', 'text/plain', b'a'))",
        "send(saved=saved('x.html', 'text/html', b'<script>'))",
        "send(saved=saved('x.txt', 'text/plain', b'\\xff\\xfe'))",
        "send(saved=saved('x.png', 'image/png', b'GIF89a'))",
        "import struct\nsend(saved=saved('x.png', 'image/png', b'\\x89PNG\\r\\n\\x1a\\n\\0\\0\\0\\rIHDR' "
        "+ struct.pack('>II', 10**6, 10**6) + bytes(9)))",
        "send(saved=saved('x.npy', 'application/x-npy', b'\\x93NUMPY\\x01\\0v\\0' + b'(__import__())'.ljust(118)))",
        "send(saved={**saved('x.txt', 'text/plain', b''), 'base64': '!'})",
        "for i in range(40): send(saved=saved(f'{i}.txt', 'text/plain', b'x'))",
        "for i in range(3): send(saved=saved(f'{i}.txt', 'text/plain', b'x' * 2**21))",
        "while True: send(saved=saved('x.txt', 'text/plain', b'x' * 2**20))",
        "send(done='finished', error='x' * 30_000)",
        "send(done='finished', tokens=[10**15, -4])",
        "send(done='finished', tokens=[10**30, 10**30])",
        "send(done='finished', error='y', tokens=[1])",
        "os.write(3, b'\\xff\\xff\\xff\\xff')",
        "os.write(3, b'\\0\\0\\0\\x06[[[[[[')",
    ],
)
async def test_lies_to_the_supervisor_leave_it_standing(run: Run, lie: str) -> None:
    result = await run(SAYS + lie, timeout_seconds=5)
    assert len(result.artifacts) <= 16
    assert sum(len(artifact.data) for artifact in result.artifacts) <= 5 * 2**20
    for artifact in result.artifacts:
        assert (artifact.media_type, artifact.name[-4:]) == ("text/plain", ".txt")
    assert 0 <= result.cost.tokens <= 2 * 10**9


async def test_a_call_that_is_cancelled_ends_with_everything_it_started(code_worker: Worker, run: Run) -> None:
    call = asyncio.create_task(code_worker.call("python", {"code": DAEMON + "time.sleep(60)"}, seed=1))
    waiting = asyncio.create_task(code_worker.call("python", {"code": "print('second')"}, seed=1))
    await asyncio.sleep(0.5)
    began = time.monotonic()
    call.cancel()
    assert printed(await waiting) == ["second"]
    assert time.monotonic() - began < 20
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_only_python_is_offered_and_no_tool_worker_knows_it(code_worker: Worker, tool_worker: Worker) -> None:
    assert list(code_worker.tools) == ["python"]
    assert code_worker.digests is None
    assert "python" not in tool_worker.tools
    from marple.errors import ToolError

    with pytest.raises(ToolError, match="there is no tool 'python'"):
        await tool_worker.call("python", {"code": "print(1)"}, seed=1)
    with pytest.raises(ToolError, match="there is no tool 'chat'"):
        await code_worker.call("chat", {}, seed=1)


async def test_the_self_test_runs_a_program(code_worker: Worker) -> None:
    (outcome,) = await code_worker.self_test()
    assert (outcome.name, outcome.ok, outcome.message) == ("python", True, "")


async def test_a_second_hello_is_refused(code_worker: Worker) -> None:
    from marple.tools.messages import WorkerConfig

    with pytest.raises(SandboxError, match="hello was already said"):
        await code_worker.hello(WorkerConfig())
