"""What the kernel says of a process is believed, and what is not as it must be is refused."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from marple.errors import SandboxUnavailableError
from marple.sandboxes import outside
from marple.sandboxes.outside import Expected, identity, verify

SLEEP = [sys.executable, "-I", "-c", "print('ready', flush=True); import sys; sys.stdin.read()"]
NOBODY = 64321


def start(command: Sequence[str], *, inherited: Sequence[int] = ()) -> subprocess.Popen[bytes]:
    pipe = subprocess.PIPE
    variables = {"PWD": "/", "SECRET": "word"}
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, env=variables, pass_fds=inherited)
    assert process.stdout is not None
    process.stdout.readline()
    return process


@pytest.fixture
def plain() -> Iterator[subprocess.Popen[bytes]]:
    with start(SLEEP) as process:
        yield process
        process.kill()


def problems(pid: int, expected: Expected) -> str:
    with pytest.raises(SandboxUnavailableError) as caught:
        verify(pid, expected)
    return str(caught.value)


def test_a_plain_process_is_nothing_that_is_expected(plain: subprocess.Popen[bytes]) -> None:
    kinds = outside.NAMESPACES
    found = problems(
        plain.pid, Expected(namespaces=kinds, uid=NOBODY, variables=("PWD",), own_tree=True, writable=("/tmp",))
    )
    assert "no_new_privs is not set" in found
    assert "no system call filter" in found
    assert f"not {NOBODY} alone" in found
    assert "its environment holds SECRET" in found
    assert "PWD" not in found
    assert "the host's root directory" in found
    assert "/ is not read-only" in found
    assert "/proc shows the kernel's proc" in found
    for kind in kinds:
        assert f"shares the host's {kind} namespace" in found


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_root_and_its_capabilities_are_refused(plain: subprocess.Popen[bytes]) -> None:
    found = problems(plain.pid, Expected())
    assert "runs as root of the host" in found
    assert "its capabilities CapEff are" in found
    assert "its capabilities CapBnd are" in found
    assert "CapBnd" not in problems(plain.pid, Expected(bounding=False))
    assert outside.seen(plain.pid)["capabilities"] != "none"


def test_descriptors_beside_the_channel_are_refused() -> None:
    end, other = socket.socketpair()
    reading, writing = os.pipe()
    with end, other, start(SLEEP, inherited=(end.fileno(), reading)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        channel = [identity(2), identity(process.stdin.fileno()), identity(process.stdout.fileno())]
        found = problems(process.pid, Expected(channel=channel))
        assert f"descriptor {end.fileno()} is a socket" in found
        assert f"descriptor {reading} is a pipe of the host's" in found
        assert "descriptor 0 is" not in found
        assert "descriptor 1 is" not in found
        process.kill()
    os.close(reading)
    os.close(writing)


def test_a_file_of_another_tree_is_told_from_its_own() -> None:
    hidden = os.memfd_create("plan")
    with start(SLEEP, inherited=(hidden,)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        channel = [identity(2), identity(process.stdin.fileno()), identity(process.stdout.fileno())]
        found = problems(process.pid, Expected(channel=channel, own_tree=True))
        assert f"descriptor {hidden} is a file from outside its tree" in found
        process.kill()
    os.close(hidden)


def test_what_would_be_handed_on_is_seen_before() -> None:
    hidden = os.memfd_create("plan")
    with start(SLEEP, inherited=(hidden,)) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        channel = [identity(2), identity(process.stdin.fileno()), identity(process.stdout.fileno())]
        found = outside.inherits(process.pid, Expected(channel=channel, variables=("PWD",)))
        assert found == ["its environment holds SECRET", f"it would inherit descriptor {hidden}"]
        process.kill()
    os.close(hidden)
    assert outside.inherits(process.pid, Expected(channel=channel)) is None


def test_a_confined_process_is_what_is_expected() -> None:
    """Without a tree of its own: what the ``process`` backend can promise."""
    code = """
import ctypes, sys
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
allow = ctypes.create_string_buffer((6).to_bytes(4, "little") + (0x7FFF0000).to_bytes(4, "little"))
libc.prctl(22, 2, ctypes.byref(Program(1, ctypes.addressof(allow))), 0, 0)
print("ready", flush=True)
sys.stdin.read()
"""
    user = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups", "--bounding-set=-all"]
    python = "/usr/bin/python3"
    if os.geteuid() != 0 or not Path(python).exists():
        pytest.skip("needs root and a Python that everybody can read")
    with start([*user, python, "-I", "-c", code]) as process:
        assert outside.is_confined(process.pid)
        found = verify(process.pid, Expected(uid=NOBODY, variables=("PWD", "SECRET")))
        assert found["uid"] == NOBODY
        assert found["no_new_privs"]
        assert found["capabilities"] == "none"
        assert found["namespaces"] == []
        assert found["verified"] == ["capabilities", "environment", "no_new_privs", "seccomp", "uid"]
        process.kill()


def test_what_has_ended_is_not_verified(plain: subprocess.Popen[bytes]) -> None:
    assert not outside.ended(plain.pid)
    plain.kill()
    while not outside.ended(plain.pid):
        time.sleep(0.01)
    plain.wait()
    assert outside.ended(plain.pid)
    assert "cannot be seen" in problems(plain.pid, Expected())
