"""Ways to other processes of the host, and ways to outlive the sandbox; the host looks who lives."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.attacks.attack import attack
from tests.attacks.sandboxed import Arena, status_of, until
from tests.attacks.world import canary

_REPOSITORY = Path(__file__).parents[3]
_STARTER = (sys.executable, "-m", "tests.attacks.starter")


@attack(
    "find out that a process of the host exists: in /proc, or by what a signal to it says",
    leaks={"process": "a signal that Landlock refuses has another error than one to nobody"},
)
def list_host_procs(arena: Arena) -> bool:
    answer = arena.ask("processes.seen", process=arena.world.victim.process.pid)
    return bool(answer["listed"] or answer["signal"] != answer.get("nobody"))


@attack("end a process of the host by signals")
def signal_host(arena: Arena) -> bool:
    victim = arena.world.victim
    arena.ask("processes.end", process=victim.process.pid)
    return until(lambda: not victim.alive, 0.2)


@attack("read the memory of a process of the host (ptrace, process_vm_readv, /proc/*/mem)")
def ptrace_host(arena: Arena) -> bool:
    victim = arena.world.victim
    answer = arena.ask(
        "processes.memory_of", process=victim.process.pid, address=victim.address, size=len(victim.memory)
    )
    return any(victim.memory in text for text in answer)


@attack("take a descriptor out of a process of the host (pidfd_getfd)")
def take_descriptor(arena: Arena) -> bool:
    answer = arena.ask("processes.descriptor_of", process=arena.world.victim.process.pid, most=16)
    return arena.world.file in str(answer)


@attack(
    "leave a process behind that belongs to nobody when the sandbox is ended",
    leaks={"process": "what leaves its process group is not found again; no code written by an agent runs in it"},
)
def daemonize(arena: Arena) -> bool:
    with arena.fresh() as sandbox:
        sandbox.ask("processes.daemonize")
        assert len(sandbox.pids()) >= 2
        sandbox.kill()
        sandbox.wait()
        return not until(lambda: not sandbox.pids(), 2)


@attack(
    "block every signal, close the channel and sleep for ever when the sandbox is ended",
    control="none: SIGKILL needs no sandbox",
)
def sleep_forever(arena: Arena) -> bool:
    with arena.fresh() as sandbox:
        sandbox.tell("processes.ignore_everything")
        time.sleep(0.1)
        assert sandbox.pids()
        sandbox.kill()
        return sandbox.wait(5) is None or not until(lambda: not sandbox.pids(), 2)


@attack(
    "compute without end, holding the interpreter's lock, when the sandbox is ended",
    control="none: SIGKILL needs no sandbox",
)
def cpu_spin(arena: Arena) -> bool:
    with arena.fresh() as sandbox:
        sandbox.tell("resources.spin")
        time.sleep(0.1)
        assert sandbox.pids()
        sandbox.kill()
        return sandbox.wait(5) is None or not until(lambda: not sandbox.pids(), 2)


@attack(
    "die unnoticed: exit, a bad access, SIGKILL from outside",
    control="none: the host has to notice, nothing has to be prevented",
)
def worker_dies(arena: Arena) -> bool:
    unnoticed = []
    for how in ("exit", "crash", "killed"):
        with arena.fresh() as sandbox:
            if how == "killed":
                os.kill(sandbox.pids()[0], signal.SIGKILL)
            else:
                sandbox.tell("processes.leave", how=how)
            if sandbox.wait(3) in (None, 0) or not until(lambda one=sandbox: not one.pids(), 1):
                unnoticed.append(how)
    return bool(unnoticed)


@attack(
    "go on when the host's process has been killed, ignoring the end of the channel",
    leaks={"docker": "the daemon does not know of the host's death; the next start on this machine ends it"},
)
def parent_death(arena: Arena) -> bool:
    return _outlives_host(arena, until_next_start=False)


@attack("the same, until the next sandbox is started")
def parent_death_next_start(arena: Arena) -> bool:
    return _outlives_host(arena, until_next_start=True)


def _outlives_host(arena: Arena, *, until_next_start: bool) -> bool:
    root = arena.world.root()
    command = [*_STARTER, arena.name, arena.without, str(root.path), "processes.ignore_everything"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=_REPOSITORY) as host:
        assert host.stdout is not None
        started = host.stdout.readline()
        running = _named(root.token)
        host.kill()
    assert started.startswith("started "), f"the {arena.name} backend did not start in another host: {started}"
    assert running
    if until_next_start:
        with arena.fresh():
            pass
    survived = not until(lambda: not _named(root.token), 3)
    for number in _named(root.token):
        os.kill(number, signal.SIGKILL)
    return survived


@attack("write to the terminal of whoever started it, or type into it (TIOCSTI)")
def tiocsti(arena: Arena) -> bool:
    word, root = canary("terminal"), arena.world.root()
    child, terminal = pty.fork()
    if child == 0:
        os.chdir(_REPOSITORY)
        os.execv(_STARTER[0], [*_STARTER, arena.name, arena.without, str(root.path), "processes.terminal", word])
    seen = b""
    end = time.monotonic() + 30
    while time.monotonic() < end and b"ended" not in seen:
        if select.select([terminal], [], [], 0.2)[0]:
            try:
                seen += os.read(terminal, 65536)
            except OSError:
                break
    os.close(terminal)
    os.waitpid(child, 0)
    assert b"ended" in seen, seen.decode("utf-8", "replace")[-2000:]
    return word.encode() in seen


def _named(token: str) -> list[int]:
    return [
        int(one.name)
        for one in Path("/proc").iterdir()
        if one.name.isdigit()
        and status_of(int(one.name)).get("Name", "").strip() == token
        and status_of(int(one.name)).get("State", "Z")[0] not in "ZX"
    ]
