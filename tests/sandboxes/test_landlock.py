"""Landlock, by what a confined process can do; each attempt works in one that is not."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from marple.sandboxes.inside import landlock
from tests.sandboxes.confining import outcome

pytestmark = pytest.mark.skipif(landlock.abi() < 6, reason="needs Landlock 6 (Linux 6.12)")
NO_FILTER = frozenset({"seccomp", "capabilities"})
LINES = """
home, target = sys.argv[1], {target!r}
tell("read outside", lambda: os.close(os.open(target + "/secret", os.O_RDONLY)))
tell("list outside", lambda: os.listdir(target))
tell("write outside", lambda: os.close(os.open(target + "/new", os.O_WRONLY | os.O_CREAT)))
tell("empty outside", lambda: os.truncate(target + "/secret", 1))
tell("remove outside", lambda: os.unlink(target + "/doomed"))
tell("link outside", lambda: os.link(target + "/secret", home + "/cache/link"))
tell("move out", lambda: os.rename(home + "/cache/own", target + "/own"))
tell("list names", lambda: os.listdir(home + "/listed"))
tell("read listed", lambda: os.close(os.open(home + "/listed/one", os.O_RDONLY)))
tell("write own", lambda: open(home + "/cache/file", "w").write("x"))
tell("run own", lambda: os.execve(home + "/cache/tool", ["tool"], {{}}))
tell("write read-only", lambda: os.close(os.open(home + "/shown/one", os.O_WRONLY)))
tell("read", lambda: os.close(os.open(home + "/shown/one", os.O_RDONLY)))
tell("signal", lambda: os.kill(os.getppid(), 0))
tell("signal own", lambda: os.kill(os.getpid(), 0))
with socket.socket() as one:
    tell("bind", lambda: one.bind(("127.0.0.1", 0)))
with socket.socket() as one:
    tell("connect", lambda: one.connect(("127.0.0.1", {port})))
with socket.socket(socket.AF_UNIX) as one:
    tell("abstract", lambda: one.connect("\\0{name}"))
"""
OWN = {"list names", "write own", "read", "signal own"}


def test_what_is_not_named_is_gone(tmp_path: Path) -> None:
    target, home = tmp_path / "target", tmp_path / "home"
    for name in ("shown", "listed", "cache"):
        (home / name).mkdir(parents=True)
        (home / name / "one").write_text("x")
    name = f"marple-test-{os.getpid()}"
    with socket.socket() as listener, socket.socket(socket.AF_UNIX) as named:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        named.bind(f"\0{name}")
        named.listen()

        def attempt(*without: str) -> dict[str, str]:
            target.mkdir(exist_ok=True)
            (target / "secret").write_text("secret")
            (target / "doomed").write_text("x")
            (home / "cache" / "own").write_text("x")
            (home / "cache" / "link").unlink(missing_ok=True)
            (home / "cache" / "tool").write_text("#!/nonexistent\n")
            (home / "cache" / "tool").chmod(0o755)
            lines = LINES.format(target=str(target), port=listener.getsockname()[1], name=name)
            # The whole folder is what the lines' script lies in; only these parts are named.
            read = [str(home / name) for name in ("shown", "listed", "program.py")]
            told = {"hidden": [str(home / "listed" / "one")], "write": [str(home / "cache"), "/dev/null"]}
            return outcome(lines, home, read=read, without=NO_FILTER | set(without), only=True, **told)

        free, held = attempt("landlock"), attempt()
    assert {what for what, came in held.items() if came == "done"} == OWN
    assert {held[what] for what in held.keys() - OWN} <= {"EACCES", "EPERM", "EXDEV"}
    assert {what for what, came in free.items() if came != "done"} == {"run own"}
    assert free["run own"] == "ENOENT", "of its interpreter"
    assert (target / "secret").read_text() == "secret"


def test_it_says_what_it_applied_and_what_the_kernel_really_does() -> None:
    lines = """
import sys; sys.path.insert(0, sys.argv[1])
import json, landlock, os
kept = landlock.keeps_signals()
told = landlock.restrict(["/usr"], [], tcp=False)
try:
    os.listdir("/")
    told["files"] = "no"
except PermissionError:
    pass
print(json.dumps([kept, told]))
"""
    command = [sys.executable, "-I", "-c", lines, str(Path(landlock.__file__).parent)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    assert said == f'[true, {{"abi": {landlock.abi()}, "files": true, "tcp": false, "scopes": true}}]'


# A kernel that claims version 6 and does not know all of its scopes.
IMITATION = """
import sys; sys.path[:0] = [sys.argv[1]]
import ctypes, errno, json, landlock
real = landlock._LIBC
class Imitation:
    prctl = real.prctl
    def syscall(self, number, *arguments):
        if number == 444 and arguments[0] is not None and arguments[0]._obj.scoped & {unknown}:
            ctypes.set_errno(errno.EINVAL)
            return -1
        return real.syscall(number, *arguments)
landlock._LIBC = Imitation()
print(json.dumps(landlock.restrict(["/usr"], [])["scopes"]))
"""


@pytest.mark.parametrize(("unknown", "scopes"), [(0, "true"), (2, "false"), (3, "false")])
def test_a_kernel_that_lacks_a_scope_it_claims_is_seen_through(unknown: int, scopes: str) -> None:
    command = [sys.executable, "-I", "-c", IMITATION.format(unknown=unknown), str(Path(landlock.__file__).parent)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip() == scopes
