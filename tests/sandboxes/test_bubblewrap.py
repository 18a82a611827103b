"""Sandboxes below bubblewrap: what they are, what bounds them, and that nothing of them is left."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from marple.errors import SandboxError, SandboxUnavailableError, WorkerDiedError
from marple.sandboxes import Limits, StagedTarget, Worker, stage, start_worker
from marple.sandboxes import cgroups as control_groups
from marple.sandboxes.backend import Program
from marple.sandboxes.bubblewrap import BACKEND, PROTECTIONS, BubblewrapBackend
from marple.sandboxes.bubblewrap import command as bwrap_command
from marple.sandboxes.bubblewrap.binary import find_bwrap
from marple.sandboxes.bubblewrap.process import SandboxedProcess
from marple.sandboxes.bubblewrap.uids import RANGE
from marple.sandboxes.outside import NAMESPACES, ended, processes, status_fields
from marple.sandboxes.process import ProcessBackend

pytestmark = pytest.mark.asyncio(loop_scope="module")
LIMITS = Limits(threads=1, device="cpu", file_mib=16, memory_gib=2.0)
MIB = 2**20
ROOT = os.geteuid() == 0
SYSTEM_PYTHON = Path("/usr/bin/python3")
ORDINARY = 64321
ECHO = """
import os
os.write(1, b"hello")
while data := os.read(0, 4096):
    os.write(1, data)
"""
DEAF = """
import os, time
os.write(1, b"hello")
time.sleep(600)
"""
SAY = """
import json, os
def say(value):
    os.write(1, json.dumps(value).encode() + b"\\n")
"""
FILL = f"""
import os, time
def fill(mib):
    held = bytearray(mib * {MIB})
    for offset in range(0, len(held), 4096):
        held[offset] = 1
    time.sleep(60)
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A staged directory, which only this user may enter."""
    root = tmp_path / "staged"
    (root / "target").mkdir(parents=True)
    (root / "cache").mkdir()
    (root / "target" / "config.json").write_text("{}")
    root.chmod(0o700)
    return root


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], Program]:
    def make(code: str) -> Program:
        path = tmp_path / "script.py"
        path.write_text(code)
        path.chmod(0o644)
        return Program("test", script=path)

    return make


async def end(sandbox: SandboxedProcess) -> int:
    sandbox.kill()
    status = await sandbox.wait()
    sandbox.close()
    return status


async def told(sandbox: SandboxedProcess) -> Any:
    """The line of JSON that a program says."""
    line = await asyncio.wait_for(sandbox.replies.readline(), 60)
    assert line, (await sandbox.diagnostics.read()).decode()
    return json.loads(line)


async def ask(root: Path, program: Program, *, limits: Limits = LIMITS, backend: BubblewrapBackend = BACKEND) -> Any:
    """What a program says, and nothing is left of it."""
    sandbox = await backend.launch(root, limits, program)
    try:
        return await told(sandbox)
    finally:
        await end(sandbox)
        assert sandbox.pid is not None
        wait_for(lambda: ended(sandbox.pid or 0))


def groups() -> list[Path]:
    """The control groups of this process's sandboxes."""
    places = {tree.own for tree in control_groups.hierarchies()}
    return [folder for place in places for folder in place.glob(f"marple-{os.getpid()}-*")]


# ---------------------------------------------------------------------------------------------- what it is


async def test_the_channel_carries_both_ways_and_its_end_ends_the_program(root: Path, script: Any) -> None:
    sandbox = await BACKEND.launch(root, LIMITS, script(ECHO))
    assert await sandbox.replies.readexactly(5) == b"hello"
    sandbox.send(b"x" * 100_000)
    assert await sandbox.replies.readexactly(100_000) == b"x" * 100_000
    sandbox.close()
    assert await asyncio.wait_for(sandbox.wait(), 20) == 0
    sandbox.kill()
    assert await sandbox.wait() == 0


async def test_the_stamp_says_what_the_kernel_says(root: Path, script: Any) -> None:
    sandbox = await BACKEND.launch(root, LIMITS, script(ECHO))
    stamp = sandbox.stamp
    assert sandbox.pid is not None
    fields = status_fields(sandbox.pid)
    assert json.loads(json.dumps(stamp)) == stamp
    assert (stamp["backend"], stamp["isolation"], stamp["env"]) == ("bubblewrap", "full", "empty")
    assert (stamp["filesystem"], stamp["network"], stamp["seccomp"]) == ("own tree", "none", "allow-list")
    assert stamp["uid"] == int(fields["Uid"].split()[0])
    assert stamp["uid"] in RANGE if ROOT else stamp["uid"] == os.geteuid()
    assert fields["Seccomp"] == "2"
    assert fields["NoNewPrivs"] == "1"
    assert stamp["capabilities"] == "none"
    assert {int(fields[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {0}
    assert set(stamp["namespaces"]) == set(NAMESPACES) - ({"user"} if ROOT else set())
    looked_at = {"capabilities", "descriptors", "environment", "mounts", "namespaces", "no_new_privs", "root"}
    assert set(stamp["verified"]) == looked_at | {"seccomp", "uid"}
    assert stamp["versions"]["bubblewrap"] == find_bwrap()[1]
    assert stamp["rlimits"] == {"core": 0, "fsize": 16 * MIB, "nofile": 512, "nproc": 256}
    assert stamp["memory"]["bytes"] == 2 * 2**30
    assert stamp["processes"]["most"] == 256
    assert stamp["memory"]["by"].startswith("cgroup") == bool(groups())
    await end(sandbox)


async def test_what_is_inside(root: Path, script: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "canary")
    code = """
import glob, sys
def refused(path, flags):
    try:
        os.close(os.open(path, flags))
    except OSError:
        return True
    return False
def fds():
    return [number for number in range(512) if not refused_stat(number)]
def refused_stat(number):
    try:
        os.fstat(number)
    except OSError:
        return True
    return False
say({
    "root": sorted(os.listdir(sys.argv[1])),
    "argument": sys.argv[1],
    "shown": [path for path in SHOWN if os.path.lexists(path)],
    "environment": dict(os.environ),
    "ids": [os.getuid(), os.getgid(), os.getgroups(), os.getpid()],
    "fds": fds(),
    "site": [len(os.listdir(path)) for path in glob.glob("/sbx/site/*/marple*.dist-info")],
    "readable": [path for path in HOST if not refused(path, os.O_RDONLY)],
    "writable": [path for path in ("/x", "/usr/x", "/sbx/x", "/sbx/root/x", "/sbx/root/target/x", "/dev/x")
                 if not refused(path, os.O_WRONLY | os.O_CREAT)],
    "scratch": [path for path in ("/tmp/x", "/dev/shm/x", "/sbx/root/cache/x")
                if not refused(path, os.O_WRONLY | os.O_CREAT)],
    "host": os.uname().nodename,
})
"""
    (tmp_path / "secret.txt").write_text("canary")
    host = ["/etc/passwd", "/etc/hostname", str(tmp_path / "secret.txt"), str(root), __file__, "/proc/1/environ"]
    shown = [
        "/proc/cpuinfo",
        "/dev/null",
        "/proc/self",
        "/proc/sys",
        "/dev/tty",
        "/dev/pts",
        "/dev/kmsg",
        "/sys",
        "/home",
    ]
    shown += ["/root", "/etc/passwd", "/etc/resolv.conf", "/run", "/var", "/mnt", "/media", "/opt", str(Path(__file__))]
    found = await ask(root, script(f"{SAY}HOST = {host}\nSHOWN = {shown}\n{code}"))
    assert found["root"] == ["cache", "target"]
    assert found["argument"] == "/sbx/root"
    assert found["shown"] == ["/proc/cpuinfo", "/dev/null"]
    assert "canary" not in str(found["environment"])
    assert found["ids"][0] != 0
    assert found["ids"][1:] == [found["ids"][0], [] if ROOT else found["ids"][2], 1]
    assert found["fds"] == [0, 1, 2]
    assert set(found["site"]) <= {0}
    assert found["readable"] == []
    assert found["writable"] == []
    assert found["scratch"] == ["/tmp/x", "/dev/shm/x", "/sbx/root/cache/x"]
    assert found["host"] == "sandbox"


async def test_temporary_files_have_a_size(root: Path, script: Any) -> None:
    code = """
def most(path):
    written = 0
    try:
        for number in range(64):
            with open(f"{path}/{number}", "wb", buffering=0) as file:
                written += file.write(b"1" * 2**20)
    except OSError:
        pass
    return written
say([most(path) for path in ("/tmp", "/dev/shm", "/sbx/root/cache")])
"""
    sizes = await ask(root, script(SAY + code), limits=dataclasses.replace(LIMITS, scratch_mib=24))
    assert sizes == [24 * MIB, 16 * MIB, 16 * MIB]


async def test_no_two_sandboxes_have_the_same_user_id(root: Path, script: Any) -> None:
    program = script(ECHO)
    first, second = await asyncio.gather(*(BACKEND.launch(root, LIMITS, program) for _ in range(2)))
    assert 0 not in (first.stamp["uid"], second.stamp["uid"])
    if ROOT:
        assert first.stamp["uid"] != second.stamp["uid"]
    await asyncio.gather(end(first), end(second))
    assert groups() == []


# ---------------------------------------------------------------------------------------------- what bounds it

BACKENDS = {
    "control group": BACKEND,
    "watchdog": BubblewrapBackend(control_groups=False),
}


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
async def test_memory_of_all_processes_together_is_bounded(backend: BubblewrapBackend, root: Path, script: Any) -> None:
    code = "for _ in range(20):\n    if os.fork() == 0:\n        fill(40)\ntime.sleep(60)\n"
    limits = dataclasses.replace(LIMITS, memory_gib=0.3)
    sandbox = await backend.launch(root, limits, script(FILL + code))
    by = sandbox.stamp["memory"]["by"]
    assert by == "watchdog" if not backend.control_groups else by in ("watchdog", "cgroup v1", "cgroup v2")
    assert await asyncio.wait_for(sandbox.wait(), 60) == -signal.SIGKILL
    assert "0.30 GiB" in (sandbox.cause or "")
    sandbox.close()


@pytest.mark.parametrize("backend", BACKENDS.values(), ids=BACKENDS)
async def test_processes_are_bounded(backend: BubblewrapBackend, root: Path, script: Any) -> None:
    code = """
import time
count = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
        count += 1
except OSError:
    say(count)
time.sleep(60)
"""
    limits = dataclasses.replace(LIMITS, processes=20)
    assert await ask(root, script(SAY + code), limits=limits, backend=backend) in range(15, 20)


async def test_files_and_descriptors_are_bounded(root: Path, script: Any) -> None:
    code = """
import resource
names = ("FSIZE", "NOFILE", "NPROC", "CORE")
say([list(resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))) for name in names])
"""
    wanted = [16 * MIB, 512, 256, 0]
    assert await ask(root, script(SAY + code)) == [[value, value] for value in wanted]


# ---------------------------------------------------------------------------------------------- how it ends


@pytest.mark.parametrize("code", ["os._exit(3)", "raise SystemExit(3)"])
async def test_a_status_is_passed_on(code: str, root: Path, script: Any) -> None:
    sandbox = await BACKEND.launch(root, LIMITS, script(f"import os\nos.write(2, b'last words')\n{code}\n"))
    assert await asyncio.wait_for(sandbox.wait(), 20) == 3
    assert await sandbox.diagnostics.read() == b"last words"
    sandbox.close()


async def test_a_crash_is_a_signal(root: Path, script: Any) -> None:
    sandbox = await BACKEND.launch(root, LIMITS, script("import ctypes\nctypes.string_at(0)\n"))
    assert await asyncio.wait_for(sandbox.wait(), 20) == -signal.SIGSEGV
    sandbox.close()


async def test_killing_ends_everything_inside(root: Path, script: Any) -> None:
    code = """
import time
for number in range(5):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
        os._exit(0)
    os.wait()
say("ready")
time.sleep(60)
"""
    sandbox = await BACKEND.launch(root, LIMITS, script(SAY + code))
    assert await told(sandbox) == "ready"
    assert sandbox.pid is not None
    namespace = Path(f"/proc/{sandbox.pid}/ns/pid").readlink()
    assert len(in_namespace(namespace)) == 6
    assert await end(sandbox) == -signal.SIGKILL
    assert in_namespace(namespace) == []
    assert groups() == []


def in_namespace(namespace: Path) -> list[int]:
    found = []
    for pid in processes():
        try:
            if Path(f"/proc/{pid}/ns/pid").readlink() == namespace:
                found.append(pid)
        except OSError:
            continue
    return found


STARTER = """
import asyncio, dataclasses, json, os, sys
from pathlib import Path
from marple.sandboxes import Limits
from marple.sandboxes.backend import Program
from marple.sandboxes.bubblewrap import BACKEND
async def main(root, script, descriptors):
    limits = Limits(device="cpu", memory_gib=1.0, descriptors=int(descriptors))
    print("starting", flush=True)
    sandbox = await BACKEND.launch(Path(root), limits, Program("test", script=Path(script)))
    said = await sandbox.replies.readexactly(5)
    print(json.dumps([sandbox.pid, said.decode(), dict(sandbox.stamp)]), flush=True)
    sys.stdin.readline()
    sandbox.kill()
    print(await sandbox.wait(), flush=True)
    sandbox.close()
asyncio.run(main(*sys.argv[1:]))
"""


def starter(
    root: Path,
    program: Program,
    *,
    python: str = sys.executable,
    user: int | None = None,
    descriptors: int = 512,
) -> subprocess.Popen[bytes]:
    """Another host, which starts one sandbox, says so, and ends it when it is told to."""
    command = [python, "-B", "-c", STARTER, str(root), str(program.script), str(descriptors)]
    pipe = subprocess.PIPE
    groups: list[int] | None = None if user is None else []
    return subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, cwd="/", user=user, group=user, extra_groups=groups
    )


def wait_for(true: Callable[[], bool], seconds: float = 20.0) -> None:
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit
        time.sleep(0.02)


async def test_when_the_host_is_killed_nothing_survives(root: Path, script: Any) -> None:
    with starter(root, script(DEAF)) as host:
        assert host.stdout is not None
        host.stdout.readline()
        pid, _, stamp = json.loads(host.stdout.readline())
        namespace = Path(f"/proc/{pid}/ns/pid").readlink()
        host.kill()
    wait_for(lambda: in_namespace(namespace) == [])
    control_groups.sweep_groups()
    places = {tree.own for tree in control_groups.hierarchies()}
    assert [folder for place in places for folder in place.glob(f"marple-{host.pid}-*")] == []
    if stamp["memory"]["by"].startswith("cgroup"):
        assert groups() == []


async def test_when_the_host_is_killed_while_it_starts_one_nothing_survives(root: Path, script: Any) -> None:
    for number in range(12):
        with starter(root, script(ECHO), descriptors=397) as host:
            assert host.stdout is not None
            assert host.stdout.readline() == b"starting\n"
            time.sleep(0.006 * number)
            host.kill()
        wait_for(lambda: of_sandboxes_with(descriptors=397) == [])


def of_sandboxes_with(*, descriptors: int) -> list[int]:
    """The processes of sandboxes with this limit: bubblewrap and what it has started both are told it."""
    found = []
    for pid in processes():
        with contextlib.suppress(OSError):
            if f'"nofile": {descriptors}'.encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return found


async def test_many_at_once_leave_nothing(root: Path, script: Any) -> None:
    before, program, chance = children(), script(ECHO), random.Random(7)

    async def one() -> int:
        sandbox = await BACKEND.launch(root, LIMITS, program)
        assert await sandbox.replies.readexactly(5) == b"hello"
        await asyncio.sleep(chance.random() / 10)
        assert sandbox.pid is not None
        if chance.random() < 0.5:
            os.kill(sandbox.pid, signal.SIGKILL)
        return await end(sandbox)

    assert set(await asyncio.gather(*(one() for _ in range(20)))) == {-signal.SIGKILL}
    assert children() <= before
    assert groups() == []


@pytest.mark.parametrize("moment", [0.0, 0.004, 0.01, 0.02, 0.04])
async def test_a_cancelled_start_leaves_nothing(moment: float, root: Path, script: Any) -> None:
    before = children()
    limits = dataclasses.replace(LIMITS, descriptors=398)
    starting = asyncio.create_task(BACKEND.launch(root, limits, script(DEAF)))
    await asyncio.sleep(moment)
    if starting.done():
        await end(starting.result())
    else:
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    wait_for(lambda: children() <= before and groups() == [])
    assert of_sandboxes_with(descriptors=398) == []


def children() -> set[int]:
    return {pid for pid in processes() if status_fields(pid).get("PPid") == str(os.getpid())}


# ---------------------------------------------------------------------------------------------- an ordinary user


@pytest.fixture(scope="module")
def ordinary_python(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An environment that every user can read, with the libraries of this one."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    asked = [str(SYSTEM_PYTHON), "-c", "import sys; print('%d.%d' % sys.version_info[:2])"]
    if not ROOT or not SYSTEM_PYTHON.exists() or subprocess.check_output(asked, text=True).strip() != version:
        pytest.skip(f"needs root, and {SYSTEM_PYTHON} to be Python {version}")
    import numpy

    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([str(SYSTEM_PYTHON), "-m", "venv", "--without-pip", str(folder)], check=True)
    site = folder / "lib" / f"python{version}" / "site-packages"
    site.rmdir()
    site.symlink_to(Path(numpy.__file__).parents[1])
    open_to_all(folder)
    probe = subprocess.run([str(folder / "bin" / "python"), "-c", "import marple.sandboxes"], user=ORDINARY, cwd="/")
    if probe.returncode != 0:
        pytest.skip("another user cannot read this installation")
    return str(folder / "bin" / "python")


def open_to_all(path: Path) -> None:
    for folder in (path, *path.parents):
        if folder.stat().st_uid == os.geteuid() and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)


async def test_an_ordinary_user_gets_the_same(
    ordinary_python: str, root: Path, script: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    program = script(ECHO)
    assert program.script is not None
    open_to_all(program.script.parent)
    for path in (root, *root.rglob("*")):
        os.chown(path, ORDINARY, ORDINARY)
    with starter(root, program, python=ordinary_python, user=ORDINARY) as host:
        said, printed = await asyncio.to_thread(host.communicate, b"\n", 60)
        assert host.returncode == 0, printed.decode()
    _, answer, status = said.decode().splitlines()
    _, hello, stamp = json.loads(answer)
    assert hello == "hello"
    assert status == "-9"
    assert stamp["isolation"] == "full"
    assert stamp["uid"] == ORDINARY
    assert set(stamp["namespaces"]) == set(NAMESPACES)
    assert set(stamp["verified"]) == {
        *("capabilities", "descriptors", "environment", "mounts", "namespaces", "no_new_privs", "root"),
        *("seccomp", "uid"),
    }
    assert stamp["memory"]["by"] in ("watchdog", "cgroup v2")


# ---------------------------------------------------------------------------------------------- what is refused


async def test_a_bubblewrap_that_fails_is_explained(root: Path, script: Any, tmp_path: Path) -> None:
    if not ROOT:
        pytest.skip("only root can make a bubblewrap of its own that is trusted")
    says = (
        'case "$1" in --version) echo bubblewrap 0.8.0;; *) echo "bwrap: Unknown option --as-pid-1" >&2; exit 1;; esac'
    )
    fake = tmp_path / "bwrap"
    fake.write_text(f"#!/bin/sh\n{says}\n")
    fake.chmod(0o755)
    before = children()
    with pytest.raises(SandboxUnavailableError, match="lacks an option"):
        await BubblewrapBackend(binary=fake).launch(root, LIMITS, script(ECHO))
    assert children() <= before


async def test_a_tree_that_cannot_be_made_is_explained(root: Path) -> None:
    before = children()
    with pytest.raises(SandboxError, match="missing"):
        await BACKEND.launch(root, LIMITS, Program("test", script=root / "missing.py"))
    assert children() <= before
    assert groups() == []


async def test_an_architecture_without_a_filter_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import platform

    monkeypatch.setattr(platform, "machine", lambda: "s390x")
    status = BACKEND.probe()
    assert not status.available
    assert "no system call filter for the architecture 's390x'" in status.reason


async def test_the_reason_why_it_is_not_available_is_told(tmp_path: Path) -> None:
    status = BubblewrapBackend(binary=tmp_path / "nothing").probe()
    assert not status.available
    assert "apt install bubblewrap" in status.reason
    assert BACKEND.probe().available


async def test_a_weakened_sandbox_says_so(root: Path, script: Any) -> None:
    backend = dataclasses.replace(BACKEND, without=frozenset({"unshare-net"}))
    sandbox = await backend.launch(root, LIMITS, script(ECHO))
    assert sandbox.stamp["isolation"] == "weakened"
    assert sandbox.stamp["without"] == ["unshare-net"]
    assert "net" not in sandbox.stamp["namespaces"]
    assert sandbox.stamp["verified"] == []
    await end(sandbox)
    with pytest.raises(ValueError, match="no such protections"):
        BubblewrapBackend(without=frozenset({"magic"}))


@pytest.mark.skipif(not ROOT, reason="needs a root that can give something up")
async def test_a_root_that_may_not_mount_is_told_what_it_lacks() -> None:
    code = "from marple.sandboxes.bubblewrap import BACKEND\nprint(BACKEND.probe())"
    lesser = ["setpriv", "--bounding-set=-sys_admin,-net_admin", sys.executable, "-c", code]
    said = subprocess.run(lesser, cwd="/", capture_output=True, text=True, check=True).stdout
    assert "available=False" in said
    assert "this root lacks CAP_SYS_ADMIN, CAP_NET_ADMIN" in said


async def test_a_graphics_processor_is_shown_with_a_procfs_and_that_is_said(
    root: Path, script: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With another device in its place: the profile itself, not the driver."""
    monkeypatch.setattr(bwrap_command, "gpu_devices", lambda device: () if device == "cpu" else (Path("/dev/tty"),))
    code = """
import time
say([sorted(path for path in os.listdir("/proc") if path.isdecimal()), os.access("/dev/tty", os.F_OK)])
time.sleep(60)
"""
    sandbox = await BACKEND.launch(root, dataclasses.replace(LIMITS, device="auto"), script(SAY + code))
    assert await told(sandbox) == [["1"], True]
    assert sandbox.stamp["isolation"] == "reduced"
    assert "graphics processor" in str(sandbox.stamp["warnings"])
    assert "mounts" in sandbox.stamp["verified"]
    await end(sandbox)


@pytest.mark.parametrize("protection", sorted(PROTECTIONS))
async def test_each_protection_can_be_left_out_alone(protection: str, root: Path, script: Any) -> None:
    """So that an attack that succeeds then succeeds for that reason."""
    backend = dataclasses.replace(BACKEND, without=frozenset({protection}))
    assert await ask(root, script(f"{SAY}say('alive')\nimport time; time.sleep(60)"), backend=backend) == "alive"


# ---------------------------------------------------------------------------------------------- the real worker


@pytest.fixture(scope="module")
def staged(models: Path) -> Iterator[StagedTarget]:
    with stage(models / "first", reference=models / "second") as staged:
        yield staged


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker(staged: StagedTarget) -> Any:
    async with await start_worker(staged, backend=BACKEND, limits=LIMITS) as worker:
        yield worker
    assert groups() == []


async def test_the_worker_gives_the_same_results_as_in_a_plain_process(worker: Worker, staged: StagedTarget) -> None:
    arguments = {"messages": [{"role": "user", "content": "who is it"}], "samples": 3, "max_new_tokens": 8}
    inside = await worker.call("chat", arguments, seed=7)
    async with await start_worker(staged, backend=ProcessBackend(), limits=LIMITS) as plain:
        outside = await plain.call("chat", arguments, seed=7)
        assert plain.facts == worker.facts
        assert list(plain.tools) == list(worker.tools)
    assert (inside.text, inside.data) == (outside.text, outside.data)


async def test_every_tools_own_test_passes_inside(worker: Worker) -> None:
    assert {outcome.name: outcome.message for outcome in await worker.self_test() if not outcome.ok} == {}


async def test_a_worker_that_is_killed_fails_its_calls(staged: StagedTarget) -> None:
    worker = await start_worker(staged, backend=BACKEND, limits=LIMITS)
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(WorkerDiedError, match="SIGKILL"):
        await worker.call("chat", {"messages": [{"role": "user", "content": "x"}]}, seed=0)
    await worker.close()
