"""The process backend: what it gives up, what it says of it, and that it does not start without."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from marple.errors import SandboxUnavailableError, WorkerDiedError
from marple.sandboxes import Limits, StagedTarget, start_worker
from marple.sandboxes.backend import CODE_WORKER, Program
from marple.sandboxes.choosing import backends
from marple.sandboxes.inside import landlock
from marple.sandboxes.process import BACKEND, PROTECTIONS, ProcessBackend
from marple.sandboxes.scratch import claim_scratch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement of Linux")
LIMITS = Limits(device="cpu", start_seconds=30)
ASK = """
import json, os, socket, sys
def came(call):
    try:
        call()
    except OSError as error:
        return error.strerror
    return "done"
told = sys.argv[1]
given = json.loads(sys.stdin.readline())
said = {
    "outside": came(lambda: open(given["secret"]).close()),
    "mode": came(lambda: os.chmod(given["secret"], 0o644)),
    "socket": came(lambda: socket.socket().close()),
    "variable": os.environ.get("CANARY", ""),
    "descriptor": came(lambda: os.fstat(given["descriptor"])),
    "owner": came(lambda: os.setgroups([1])),
    "file": came(lambda: open(told + "/cache/f", "wb").write(bytes(4 * 2**20))),
}
print(json.dumps(said), flush=True)
sys.stdin.read()
"""
HELD = {
    "outside": "Permission denied",
    "mode": "Operation not permitted",
    "socket": "Operation not permitted",
    "variable": "",
    "descriptor": "Bad file descriptor",
    "owner": "Operation not permitted",
    "file": "File too large",
}
OPENED = {
    "landlock": {"outside"},
    "seccomp": {"mode", "socket"},
    "env": {"variable"},
    "close-fds": {"descriptor"},
    "capabilities": {"owner"},
    "rlimits": {"file"},
}


@pytest.fixture
def root() -> Iterator[Path]:
    scratch = claim_scratch()
    (scratch.path / "cache").mkdir()
    yield scratch.path
    scratch.remove()


@pytest.fixture
def program(tmp_path: Path) -> Program:
    script = tmp_path / "asked" / "program.py"
    script.parent.mkdir()
    script.write_text(ASK)
    return Program("test", script=script)


async def ask(backend: ProcessBackend, root: Path, program: Program, secret: Path) -> tuple[dict[str, str], object]:
    """What the program could do, and the stamp."""
    kept = os.open(secret, os.O_RDONLY)
    os.set_inheritable(kept, True)
    os.environ["CANARY"] = "4711"
    try:
        launched = await backend.launch(root, dataclasses.replace(LIMITS, file_mib=1), program)
    finally:
        del os.environ["CANARY"]
        os.close(kept)
    try:
        launched.send(json.dumps({"secret": str(secret), "descriptor": kept}).encode() + b"\n")
        return json.loads(await launched.replies.readline()), launched.stamp
    finally:
        launched.kill()
        await launched.wait()
        launched.close()


@pytest.mark.skipif(landlock.abi() < 6, reason="needs Landlock 6 (Linux 6.12)")
@pytest.mark.parametrize("left_out", [None, *OPENED])
async def test_each_protection_holds_and_is_what_holds(
    left_out: str | None, root: Path, program: Program, tmp_path: Path
) -> None:
    if left_out == "capabilities" and os.geteuid() != 0:
        pytest.skip("an ordinary user has none to give up")
    secret = tmp_path / "secret"
    secret.write_text("secret")
    backend = ProcessBackend(without=frozenset({left_out} if left_out else ()))
    said, stamp = await ask(backend, root, program, secret)
    assert {name for name, came in said.items() if came != HELD[name]} == (OPENED[left_out] if left_out else set())
    assert isinstance(stamp, dict)
    assert stamp["isolation"] == ("weakened" if left_out else "reduced")
    assert (stamp["filesystem"] == "landlock") == (left_out != "landlock")
    assert (stamp["seccomp"] == "allow-list") == (left_out != "seccomp")
    assert stamp["rlimits"] == ({} if left_out == "rlimits" else {"core": 0, "fsize": 2**20, "nofile": 512})


def test_what_can_be_left_out_is_known_and_nothing_is_by_default() -> None:
    assert set(OPENED) | {"memory"} == PROTECTIONS
    assert BACKEND.without == frozenset()
    with pytest.raises(ValueError, match="selinux"):
        ProcessBackend(without=frozenset({"selinux"}))


async def test_it_never_runs_code_of_an_agent(root: Path) -> None:
    with pytest.raises(SandboxUnavailableError, match="never runs code written by an agent"):
        await BACKEND.launch(root, LIMITS, CODE_WORKER)
    assert not BACKEND.contains_code


async def test_a_worker_that_cannot_be_confined_does_not_start(root: Path, program: Program, monkeypatch) -> None:
    # As on a kernel that has Landlock and refuses what is asked of it.
    monkeypatch.setattr("marple.sandboxes.process.boot_argument", _refused)
    with pytest.raises(SandboxUnavailableError, match="could not confine itself: ValueError"):
        await BACKEND.launch(root, LIMITS, program)


def _refused(program: Program, **told) -> str:
    from marple.sandboxes.booting import boot_argument

    return boot_argument(program, **{**told, "write": ["/proc/boot\0"]})


async def test_it_says_what_it_takes_too_much_memory_of(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import sys\nkept = [bytes(2**20 * 16).replace(b'\\0', b'x') for _ in range(100)]\nsys.stdin.read()"
    )
    # On a machine with a graphics processor there is no limit of the address space, and none is wanted here.
    limits = dataclasses.replace(LIMITS, memory_gib=0.25)
    backend = ProcessBackend(without=frozenset({"rlimits"}))
    launched = await backend.launch(root, limits, Program("test", script=script))
    try:
        assert await launched.wait() == -9
        assert "the limit is 0.25 GiB" in (launched.cause or "")
    finally:
        launched.close()


async def test_a_program_that_ends_by_itself_is_death_not_a_missing_protection(root: Path, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text("raise SystemExit(3)")
    with pytest.raises(WorkerDiedError, match="status 3"):
        await start_worker(
            StagedTarget(root, root / "target"), backend=BACKEND, limits=LIMITS, program=Program("test", script=script)
        )


def test_it_is_examined_like_the_others() -> None:
    status = backends(["process"])["process"]
    assert status.available
    if landlock.abi() >= 6:
        # It has no file tree and no process list of its own, and keeps the user's id.
        assert set(status.stamp["open"]) <= {"host_path", "not_root"}
