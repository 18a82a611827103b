"""Control groups of both versions: where they may be made, that their limits hold, and that none is left."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from marple.errors import SandboxError
from marple.sandboxes import cgroups
from marple.sandboxes.cgroups import Group, Hierarchy, hierarchies, make_group, sweep_groups

MIB = 2**20
CGROUP_V1 = """\
9:name=systemd:/
8:pids:/jobs
4:memory:/jobs/one
0::/
"""
MOUNTS_V1 = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
35 31 0:32 / {root}/memory rw,relatime - cgroup cgroup rw,memory
39 31 0:36 / {root}/pids rw,relatime shared:9 - cgroup cgroup rw,pids
41 31 0:38 / {root}/unified rw,relatime - cgroup2 cgroup2 rw
"""
MOUNTS_V2 = "30 23 0:26 / {root} rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n"


def tree(root: Path, files: dict[str, str]) -> Path:
    """Directories with files in them, as a stand-in for trees of control groups that this machine does not have."""
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


def test_where_this_process_is_in_trees_of_version_1(tmp_path: Path) -> None:
    for folder in ("memory/jobs/one", "pids/jobs", "unified"):
        (tmp_path / folder).mkdir(parents=True)
    found = {tuple(one.controllers): one for one in hierarchies(CGROUP_V1, MOUNTS_V1.format(root=tmp_path))}
    assert found["memory",] == Hierarchy(1, frozenset({"memory"}), tmp_path / "memory", tmp_path / "memory/jobs/one")
    assert found["pids",].own == tmp_path / "pids/jobs"
    assert found[()].version == 2


def test_in_a_container_the_root_that_is_shown_is_taken_off(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    mounts = f"35 31 0:32 /docker/abc {tmp_path} rw,relatime - cgroup cgroup rw,memory\n"
    assert hierarchies("4:memory:/docker/abc/inner\n", mounts)[0].own == tmp_path / "inner"
    assert hierarchies("4:memory:/elsewhere\n", mounts)[0].own == tmp_path


def test_of_version_2_the_nearest_group_that_hands_both_controllers_on_is_taken(tmp_path: Path) -> None:
    """As on a desktop: the program's own scope holds processes and hands nothing on, the slice above it does."""
    root = tree(
        tmp_path,
        {
            "cgroup.subtree_control": "cpu memory pids\n",
            "cgroup.procs": "",
            "user/app/cgroup.subtree_control": "memory pids\n",
            "user/app/cgroup.procs": "",
            "user/app/one/cgroup.subtree_control": "\n",
            "user/app/one/cgroup.procs": "",
        },
    )
    trees = hierarchies("0::/user/app/one\n", MOUNTS_V2.format(root=root))
    group = make_group(300 * MIB, 20, trees=trees)
    assert group is not None
    assert group.by == "cgroup v2"
    assert group.memory == group.pids
    assert group.memory.parent == root / "user/app"
    assert group.memory.name.startswith(f"marple-{os.getpid()}-")


def test_of_version_2_without_the_controllers_there_is_no_group(tmp_path: Path) -> None:
    root = tree(tmp_path, {"cgroup.subtree_control": "cpu\n", "cgroup.procs": "", "one/cgroup.procs": ""})
    assert make_group(300 * MIB, 20, trees=hierarchies("0::/one\n", MOUNTS_V2.format(root=root))) is None


def test_limits_of_version_2_are_those_of_its_files(tmp_path: Path) -> None:
    tree(tmp_path, {"memory.max": "max", "pids.max": "max", "memory.swap.max": "max", "memory.oom.group": "0"})
    group = Group("cgroup v2", tmp_path, tmp_path)
    cgroups._write_limits(group, 300 * MIB + 1, 20)
    assert (group.memory_bytes(), group.most_processes()) == (300 * MIB, 20)
    assert (tmp_path / "memory.swap.max").read_text() == "0"
    assert (tmp_path / "memory.oom.group").read_text() == "1"
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 0\n")
    assert not group.ran_out()
    (tmp_path / "memory.events").write_text("low 0\noom 1\noom_kill 2\n")
    assert group.ran_out()


def test_the_scope_asked_of_systemd_has_the_limits_and_the_process() -> None:
    call = cgroups._scope_call("marple-1-0123456789ab.scope", 4711, 300 * MIB, 20)
    signature, name, mode, count, *properties, auxiliary = call[call.index("StartTransientUnit") + 1 :]
    assert (signature, name, mode, auxiliary) == ("ssa(sv)a(sa(sv))", "marple-1-0123456789ab.scope", "fail", "0")
    assert int(count) == 5
    assert properties[:4] == ["PIDs", "au", "1", "4711"]
    assert ["MemoryMax", "t", str(300 * MIB)] == properties[4:7]
    assert properties[7:13] == ["MemorySwapMax", "t", "0", "TasksMax", "t", "20"]


def test_a_systemd_that_only_says_yes_is_not_believed(tmp_path: Path) -> None:
    yes = tmp_path / "busctl"
    yes.write_text("#!/bin/sh\nexit 0\n")
    yes.chmod(0o755)
    assert cgroups.ask_systemd(os.getpid(), 300 * MIB, 20, busctl=yes) is None


# ---------------------------------------------------------------------------------------------- on this machine


@pytest.fixture
def group() -> Iterator[Group]:
    made = make_group(200 * MIB, 12)
    if made is None:
        pytest.skip("this process may make no control groups")
    yield made
    for pid in made.processes():
        os.kill(pid, signal.SIGKILL)
    assert made.remove()


@contextlib.contextmanager
def inside(group: Group, code: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that goes on once it is in the group."""
    command = [sys.executable, "-I", "-c", f"import os, sys\nos.read(0, 1)\n{code}"]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True) as process:
        try:
            group.add(process.pid)
            assert group.holds(process.pid)
            assert process.stdin is not None
            process.stdin.write(b"\n")
            process.stdin.flush()
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_memory_ends_where_the_limit_is(group: Group) -> None:
    assert group.memory_bytes() == 200 * MIB
    with inside(group, f"held = bytearray(400 * {MIB})\nfor at in range(0, len(held), 4096): held[at] = 1") as process:
        assert process.wait(timeout=60) == -signal.SIGKILL
    assert group.ran_out()


def test_memory_of_children_counts_together(group: Group) -> None:
    code = f"""
import time
def fill():
    held = bytearray(40 * {MIB})
    for at in range(0, len(held), 4096):
        held[at] = 1
    time.sleep(60)
children = []
for _ in range(8):
    child = os.fork()
    if child == 0:
        fill()
    children.append(child)
print(os.waitpid(-1, 0)[1] & 127, flush=True)
"""
    with inside(group, code) as process:
        assert process.stdout is not None
        # Whichever of them the kernel ends, it ends one.
        assert process.stdout.readline() in (b"9\n", b"")
    assert group.ran_out()


def test_processes_end_where_the_limit_is(group: Group) -> None:
    assert group.most_processes() == 12
    code = """
import time
count = 0
try:
    while True:
        if os.fork() == 0:
            time.sleep(60)
        count += 1
except BlockingIOError:
    print(count, flush=True)
os.read(0, 1)
"""
    with inside(group, code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"11\n"
        assert len(group.processes()) == 12
    assert not group.ran_out()


def test_a_process_that_is_not_there_is_not_said_to_be(group: Group) -> None:
    with pytest.raises(SandboxError, match="could not be put"):
        group.add(2**22 - 1)
    assert not group.holds(os.getpid())


def test_groups_of_hosts_that_are_gone_are_swept_and_others_stay(group: Group) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait()
    left = group.memory.with_name(f"marple-{gone.pid}-{'0' * 12}")
    other = group.memory.with_name(f"marples-{gone.pid}-{'0' * 12}")
    left.mkdir()
    other.mkdir()
    try:
        assert sweep_groups() == [left]
        assert not left.exists()
        assert other.exists()
        assert group.memory.exists()
    finally:
        other.rmdir()
