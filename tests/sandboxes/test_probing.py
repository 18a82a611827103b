"""The examination of a backend: it finds what is open, believes no boast, and leaves nothing behind."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from marple.errors import SandboxUnavailableError, UnknownNameError
from marple.sandboxes import choosing
from marple.sandboxes.backend import BackendStatus, Program, find_backends
from marple.sandboxes.choosing import backends, choose_backend
from marple.sandboxes.probing import CHECKS, examine, status_of
from tests.sandboxes.unconfined import Unconfined

BOAST = """
import json, os, socket, sys
length = int.from_bytes(os.read(0, 4), "big")
said = json.loads(os.read(0, length))
with socket.create_connection(("127.0.0.1", said["port"])):
    pass
refused = ["tcp", "unix_path", "unix_abstract", "io_uring", "stat", "signal", "ptrace", "root", "namespaces"]
boast = dict.fromkeys(refused, "PermissionError")
boast |= {"descriptors": [0, 1, 2], "families": [], "kernel": [], "writable": [], "capabilities": 0}
boast |= {"environment": "", "mounts": "", "commands": "", "file": open(said["file"]).read()}
body = json.dumps(boast).encode()
os.write(1, len(body).to_bytes(4, "big") + body)
os.read(0, 1)
"""


def test_everything_is_open_where_nothing_is_prevented() -> None:
    found = examine(Unconfined())
    assert found.problem == ""
    always = {"descriptors", "mounts", "commands"}  # prevented by how any child is started, or by having no mounts
    if os.geteuid() != 0:
        always |= {"not_root", "kernel_settings", "capabilities"}
    assert set(CHECKS) - set(found.open) <= always


@pytest.mark.parametrize("name", [name for name, backend in find_backends().items() if backend.contains_code])
def test_nothing_is_open_in_a_backend_that_contains_code(name: str, request: pytest.FixtureRequest) -> None:
    if name == "docker":
        request.getfixturevalue("docker_daemon")
    status = backends([name])[name]
    if not status.available and "CI" not in os.environ:
        pytest.skip(status.reason)
    assert status.available, status.reason
    assert status.stamp["open"] == []
    assert status.stamp["isolation"] == "full"


def test_what_the_inside_says_of_itself_is_not_believed(tmp_path: Path) -> None:
    program = tmp_path / "boast.py"
    program.write_text(BOAST)
    found = examine(Unconfined(), program=Program("boast", script=program))
    assert {"tcp", "host_file", "no_new_privileges", "seccomp"} <= set(found.open)
    assert "socket" not in found.open


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        ("raise SystemExit('no room today')", "no room today"),
        ("import os; os.write(1, b'\\xff' * 8)", "frame announces"),
        ("import os; os.write(1, b'\\x00\\x00\\x00\\x02{}'); os.read(0, 9999); os.read(0, 1)", ""),
    ],
)
def test_a_probe_that_says_nothing_usable_is_no_proof(code: str, problem: str, tmp_path: Path) -> None:
    program = tmp_path / "broken.py"
    program.write_text(code)
    found = examine(Unconfined(), program=Program("broken", script=program))
    assert problem in found.problem
    assert found.problem or len(found.open) >= len(CHECKS) - 2  # the two that the kernel answers may hold


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before = dict(os.environ)
    examine(Unconfined())
    assert list(tmp_path.glob("marple-*/*")) == []
    assert dict(os.environ) == before


async def _examine_inside_a_loop() -> list[str]:
    return examine(Unconfined()).open


def test_it_works_while_a_loop_runs() -> None:
    assert "tcp" in asyncio.run(_examine_inside_a_loop())


@dataclass(frozen=True)
class _Leaky(Unconfined):
    name: str = "leaky"
    preference: int = 99


@dataclass(frozen=True)
class _Missing(Unconfined):
    name: str = "missing"
    preference: int = 50

    def probe(self) -> BackendStatus:
        return BackendStatus(self.name, available=False, reason="no such program; install it")


def test_a_backend_for_code_that_lets_something_through_is_not_used() -> None:
    status = status_of(_Leaky())
    assert not status.available
    assert "connect to a listener of the host on loopback" in status.reason


def test_auto_takes_what_holds_and_never_the_leaky_one(monkeypatch: pytest.MonkeyPatch) -> None:
    real = find_backends()
    monkeypatch.setattr(choosing, "find_backends", lambda: {**real, "leaky": _Leaky(), "missing": _Missing()})
    assert choose_backend().backend.name in real
    with pytest.raises(SandboxUnavailableError, match="leaky backend does not work on this machine: from inside"):
        choose_backend("leaky")
    with pytest.raises(SandboxUnavailableError, match="no such program; install it"):
        choose_backend("missing")
    monkeypatch.setattr(choosing, "find_backends", lambda: {"leaky": _Leaky(), "missing": _Missing()})
    with pytest.raises(SandboxUnavailableError, match="no backend works on this machine"):
        choose_backend()


def test_an_unknown_backend_is_named_with_the_known() -> None:
    with pytest.raises(UnknownNameError, match="unknown sandbox backend 'proces'; did you mean process"):
        choose_backend("proces")


def test_the_command_prints_what_held() -> None:
    command = [sys.executable, "-m", "marple.cli", "sandbox", "probe", "--backend", "process"]
    done = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True)
    (record,) = json.loads(done.stdout)
    assert record["backend"] == "process"
    assert record["available"]
    assert {check["name"] for check in record["checks"]} == set(CHECKS)
    assert record["open"] == [check["name"] for check in record["checks"] if not check["held"]]
    words = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "process  works" in words
    assert "connect to a listener of the host on loopback" in words
    wrong = subprocess.run([*command[:-1], "nothing"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert "unknown sandbox backend 'nothing'" in wrong.stderr
