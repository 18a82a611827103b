"""Ways that a program of the agent's has to the worker that runs it, and to the next program."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path
from typing import Any

from marple.errors import SandboxError
from tests.attacks.attack import attack
from tests.attacks.coding import CodeArena, ran
from tests.attacks.sandboxed import Arena, SandboxEndedError, status_of, until
from tests.attacks.world import canary

_APART = {"process": "it never runs code written by an agent"}

_KILL = """
import os
above = [os.getppid()]
for pid in [*above, 1, 2, 3]:
    if pid > 1 or pid in above:
        for number in (9, 15, 19):
            try:
                os.kill(pid, number)
            except OSError as error:
                print(pid, type(error).__name__)
"""
_KILL_PARENT = """
import os
os.kill(os.getppid(), 9)
"""
_PTRACE = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
text = ctypes.create_string_buffer(8)
here = (ctypes.c_size_t * 2)(ctypes.addressof(text), 8)
there = (ctypes.c_size_t * 2)(id(os), 8)
numbers = (310, 101, 438) if os.uname().machine == "x86_64" else (270, 117, 438)
if libc.syscall(numbers[0], os.getppid(), here, 1, there, 1, 0) == 8:
    print("reached by process_vm_readv")
if libc.syscall(numbers[1], 0x4206, os.getppid(), 0, 0) == 0:
    libc.syscall(numbers[1], 17, os.getppid(), 0, 0)
    print("reached by ptrace")
try:
    opened = os.open(f"/proc/{os.getppid()}/mem", os.O_RDONLY)
    print("reached by /proc", opened)
except OSError as error:
    print(error)
"""
_DAEMON = """
import ctypes, os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(15, {name!r}.encode(), 0, 0, 0)
        os.closerange(0, 256)
        time.sleep(600)
    os._exit(0)
time.sleep(0.3)
print("left")
"""
_FORGE = """
import json, os
body = json.dumps({{"id": {identifier!r}, "value": {word!r}, "ok": {{"text": {word!r}}}}}).encode()
for number in range(256):
    try:
        os.write(number, len(body).to_bytes(4, "big") + body)
    except OSError:
        pass
"""
_PATCH = """
import builtins, json, sys
json.dumps = lambda *arguments, **named: "patched"
builtins.attacked = True
sys.modules["statistics"] = "patched"
"""
_PATCHED = """
import builtins, json, sys
print(hasattr(builtins, "attacked"), json.dumps(1), sys.modules.get("statistics") == "patched")
"""
_MUTATE = """
before = target.next_logits("a").sum()
for parameter in target.model.parameters():
    parameter.data.zero_()
target.model.register_forward_hook(lambda *arguments: None)
print("changed", bool(before != target.next_logits("a").sum()))
"""
_MEASURE = 'print(target.next_logits("what is it").double().sum().item())'
_LEAVE = """
import os, pathlib, sys
for folder in ("/tmp", "/dev/shm", ".", os.environ.get("HOME", "."), "/sbx/root/cache", *sys.path):
    for name in ({name!r}, "sitecustomize.py"):
        if name.startswith("site") and folder not in (".", os.environ.get("HOME")):
            continue
        try:
            (pathlib.Path(folder) / name).write_text("# " + {word!r})
        except OSError:
            pass
"""
_FIND = """
import os, pathlib, sys
for folder in ("/tmp", "/dev/shm", ".", os.environ.get("HOME", "."), "/sbx/root/cache", *sys.path):
    try:
        print((pathlib.Path(folder) / {name!r}).read_text())
    except OSError:
        pass
"""


@attack("end the worker that runs its program, by signals", apart=_APART)
def kill_worker(arena: Arena) -> bool:
    code = _KILL if isinstance(arena, CodeArena) else _KILL_PARENT
    try:
        ran(arena, code)
        return "alive" not in ran(arena, "print('alive')")
    except (SandboxError, SandboxEndedError):
        return True


@attack("read the worker's memory, trace it, open it in /proc", apart=_APART)
def ptrace_worker(arena: Arena) -> bool:
    return "reached" in ran(arena, _PTRACE)


@attack("leave a process behind that goes on when its call is over", apart=_APART)
def daemonize_in_call(arena: Arena) -> bool:
    name = canary("left")[-14:]
    assert "left" in ran(arena, _DAEMON.format(name=name))
    survived = not until(lambda: not _running(name), 2)
    for one in _running(name):
        os.kill(one, signal.SIGKILL)
    return survived


@attack("send the host a forged result over every descriptor there is", apart=_APART)
def forge_frames_stdout(arena: Arena) -> bool:
    word = canary("forged")
    try:
        answer: Any = ran(arena, _FORGE.format(word=word, identifier="1"), whole=True)
        # Printed, or refused: but not taken for the result.
        forged = answer == word or (not isinstance(answer, str) and str(answer.text).startswith(word))
        return forged or "alive" not in ran(arena, "print('alive')")
    except (SandboxError, SandboxEndedError):
        return True
    finally:
        _renew(arena)


@attack("change a library for whatever runs after its call", apart=_APART)
def patch_tool_code(arena: Arena) -> bool:
    try:
        ran(arena, _PATCH, here=True)
        return bool(ran(arena, _PATCHED, here=True).strip() != "False 1 False")
    except SandboxEndedError:
        return True
    finally:
        _renew(arena)


@attack(
    "change the model's weights and hooks for whatever runs after its call",
    apart=_APART,
    control="none: in the call itself the weights are seen to change; what keeps them apart is a process for each call",
)
def mutate_weights(arena: Arena) -> bool:
    assert isinstance(arena, CodeArena)
    before, digest = ran(arena, _MEASURE), arena.digest()
    for _ in range(3):
        assert "changed True" in ran(arena, _MUTATE)
    return bool(ran(arena, _MEASURE) != before or arena.digest() != digest)


@attack("leave a file for the next call: in temporary files, the home directory, the path of Python", apart=_APART)
def persist_between_calls(arena: Arena) -> bool:
    word, name = canary("file"), canary("name")
    if isinstance(arena, CodeArena):
        ran(arena, _LEAVE.format(name=name, word=word))
        return word in ran(arena, _FIND.format(name=name))
    with contextlib.ExitStack() as stack:
        path = arena.world.open / name
        stack.callback(path.unlink, missing_ok=True)
        ran(arena, f"import pathlib; pathlib.Path({str(path)!r}).write_text({word!r})")
        return word in ran(arena, f"import pathlib; print(pathlib.Path({str(path)!r}).read_text())")


def _renew(arena: Arena) -> None:
    """Without separation nothing that the attacked process says from now on can be trusted."""
    if not isinstance(arena, CodeArena):
        arena.close()


def _running(name: str) -> list[int]:
    numbers = [int(one.name) for one in Path("/proc").iterdir() if one.name.isdigit()]
    found = [one for one in numbers if status_of(one).get("Name", "").strip() == name]
    return [one for one in found if status_of(one).get("State", "Z")[0] not in "ZXT"]
