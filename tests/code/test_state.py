"""What one program leaves behind: nothing, unless it is asked to keep its variables."""

from __future__ import annotations

import asyncio

import pytest

from marple.sandboxes import Worker
from tests.code.conftest import Run, printed

pytestmark = pytest.mark.asyncio(loop_scope="module")

ASK = "print(target.generate('who is it', n=2, max_new_tokens=6))"
CHAT = {"messages": [{"role": "user", "content": "who is it"}], "samples": 2, "max_new_tokens": 6}

CHANGES = {
    "weights": "for p in target.model.parameters(): p.data.zero_()",
    "hooks": "target.model.model.layers[0].register_forward_hook(lambda m, i, o: o * 0)",
    "torch": "torch.argmax = torch.softmax = torch.topk = lambda *a, **k: 0\ntorch.nn.Linear.forward = lambda s, x: x",
    "the tool's own code": (
        "import marple.tools.replies as r, marple.tools.code.api as a\n"
        "a.sample_replies = r.sample_replies = lambda *a, **k: []"
    ),
    "random state": "torch.manual_seed(99); np.random.seed(5)\nimport random; random.seed(1)",
    "builtins": "import builtins\nbuiltins.print = builtins.repr = lambda *a: None",
    "modules": "import sys\nsys.modules['json'] = None\nsys.path.insert(0, '.')",
    "environment": "import os\nos.environ.clear(); os.environ['LD_PRELOAD'] = './evil.so'",
    "atexit": "import atexit\natexit.register(lambda: open('late', 'w').write('x'))",
    "files": (
        "import pathlib\nfor n in ('sitecustomize.py', 'torch.py', 'x.pth'): pathlib.Path(n).write_text('raise 1')\n"
        "pathlib.Path('__pycache__').mkdir()"
    ),
}


@pytest.mark.parametrize("change", CHANGES)
async def test_nothing_that_a_program_changes_reaches_the_next_one_or_a_tool(
    run: Run, code_worker: Worker, tool_worker: Worker, change: str
) -> None:
    before = printed(await run(ASK))
    told = await tool_worker.call("chat", CHAT, seed=7)
    weights = await code_worker.digest()
    await run(f"x = 1\n{CHANGES[change]}")
    assert printed(await run(ASK)) == before
    assert (await run("x")).data["ended"] == "raised"
    assert await code_worker.digest() == weights
    assert await tool_worker.digest() == tool_worker.digests
    again = await tool_worker.call("chat", CHAT, seed=7, fresh=True)
    assert again.data == told.data


async def test_weights_edited_by_a_program_count_for_the_rest_of_it(run: Run) -> None:
    ask = "print(target.generate('who is it', temperature=0, max_new_tokens=6))"
    first, second = printed(await run(f"{ask}\ntarget.model.lm_head.weight.data.mul_(-1)\n{ask}"))
    assert first != second


async def test_kept_variables_are_there_for_the_next_call_that_keeps_them(run: Run) -> None:
    first = await run("x = 41\ndef f(): return x + 1", keep_state=True)
    assert "State: new; the next call with keep_state goes on with these variables." in first.text
    second = await run("print(f())\nx = 0", keep_state=True)
    assert printed(second) == ["42"]
    assert "State: kept; this was call 2 with the same variables." in second.text
    third = await run("f() / x", keep_state=True)
    assert 'File "code 3", line 1\n    f() / x' in third.data["error"]
    assert (await run("x")).data["ended"] == "raised"
    assert printed(await run("x", keep_state=True)) == ["0"]


async def test_kept_results_are_seeded_and_saved_call_by_call(run: Run) -> None:
    program = "save('a', 'text'); print(torch.rand(1).item(), target.generate('who', max_new_tokens=4))"
    first, second = [await run(program, keep_state=True) for _ in range(2)]
    assert printed(first) == printed(second)
    assert [a.name for a in second.artifacts] == ["a.txt"]
    assert second.cost.generated_tokens == first.cost.generated_tokens


@pytest.mark.parametrize(
    ("end", "said"),
    [
        ("exit()", "The code ended its process"),
        ("while True: pass", "when its time was over"),
        ("import os; os.kill(os.getpid(), 9)", "it was killed (SIGKILL)"),
        ("import os; os.write(3, b'no frame at all, but bytes')", "wrote into the channel of save() itself"),
    ],
)
async def test_a_state_that_is_lost_is_said_to_be(run: Run, end: str, said: str) -> None:
    await run("x = 1", keep_state=True)
    lost = await run(end, keep_state=True, timeout_seconds=1)
    assert said in lost.text
    assert "State: lost with the process; the next call with keep_state begins anew." in lost.text
    anew = await run("x", keep_state=True)
    assert "State: new" in anew.text
    assert "NameError" in anew.data["error"]


async def test_a_state_that_dies_between_calls_is_said_to_be_lost(run: Run) -> None:
    program = "import os, threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), os._exit(1))).start()"
    await run(program, keep_state=True)
    # What is kept stands still between calls, so the thread goes on with the next one.
    lost = await run("import time\ntime.sleep(5)", keep_state=True)
    assert "The code ended its process" in lost.text
    assert lost.data["ended"] == "exited"


async def test_what_is_kept_does_nothing_between_calls(run: Run) -> None:
    program = """
import threading, time
count = 0
def work():
    global count
    while True:
        count += 1
        time.sleep(0.01)
threading.Thread(target=work, daemon=True).start()
time.sleep(0.3)
print(count)
"""
    before = int(printed(await run(program, keep_state=True))[0])
    assert before > 5
    await asyncio.sleep(1.5)
    after = int(printed(await run("print(count)", keep_state=True))[0])
    assert after - before < 50
