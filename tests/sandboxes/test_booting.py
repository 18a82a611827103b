"""The script that confines a process and becomes the program."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from marple.sandboxes.backend import Program
from marple.sandboxes.booting import boot_argument
from marple.sandboxes.inside.boot import CONFINED, NOT_CONFINED
from tests.sandboxes.confining import BOOT, confined, outcome

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="confinement of Linux")
TELL = """
status = dict(line.split(":\\t") for line in open("/proc/self/status").read().splitlines())
for name in ("Name", "NoNewPrivs", "Seccomp", "CapEff", "CapBnd"):
    said[name] = status[name]
import resource
said["environ"] = " ".join(f"{name}={value}" for name, value in sorted(os.environ.items()))
said["files"] = str(resource.getrlimit(resource.RLIMIT_NOFILE))
said["core"] = str(resource.getrlimit(resource.RLIMIT_CORE))
# PR_GET_PDEATHSIG and PR_GET_DUMPABLE.
signal_ = ctypes.c_int()
libc.prctl(2, ctypes.byref(signal_), 0, 0, 0)
said["parent"], said["dumpable"] = str(signal_.value), str(libc.prctl(3, 0, 0, 0, 0))
said["argv"] = json.dumps(sys.argv)
said["modules"] = " ".join(sorted({"landlock", "seccomp", "syscalls", "marple"} & set(sys.modules)))
said["path"] = str(sys.argv[0] in sys.path or any(p.endswith("inside") for p in sys.path))
"""


def test_the_program_starts_confined_and_with_what_it_was_told(tmp_path: Path) -> None:
    told = {"environment": {"A": "1", "B": "2"}, "rlimits": {"nofile": 100, "core": 0}, "read": ["/proc/self"]}
    said = outcome(TELL, tmp_path, **told)
    assert said["Name"] == CONFINED
    assert (said["NoNewPrivs"], said["Seccomp"]) == ("1", "2")
    assert (int(said["CapEff"], 16), int(said["CapBnd"], 16)) == (0, 0)
    assert said["environ"] == "A=1 B=2"
    assert (said["files"], said["core"]) == ("(100, 100)", "(0, 0)")
    assert (said["parent"], said["dumpable"]) == ("9", "0")
    assert json.loads(said["argv"]) == [str(tmp_path / "program.py"), str(tmp_path)]
    assert (said["modules"], said["path"]) == ("", "False")


def test_what_is_left_out_is_not_there(tmp_path: Path) -> None:
    without = {"landlock", "seccomp", "capabilities", "rlimits"}
    said = outcome(TELL, tmp_path, rlimits={"nofile": 100}, without=without)
    assert said["Seccomp"] == "0"
    assert said["files"] != "(100, 100)"
    own = dict(line.split(":\t") for line in Path("/proc/self/status").read_text().splitlines())
    assert said["CapEff"] == own["CapEff"]


# A filter of our own, around the script: a kernel without the call.
MISSING = """
import ctypes, errno, os, struct, sys
libc = ctypes.CDLL(None)
code = [(0x20, 0, 0, 0), (0x15, 0, 1, int(sys.argv[1]))]
code += [(0x06, 0, 0, 0x50000 | errno.ENOSYS), (0x06, 0, 0, 0x7FFF0000)]
packed = b"".join(struct.pack("=HBBI", *one) for one in code)
buffer = ctypes.create_string_buffer(packed, len(packed))
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]
libc.prctl(38, 1, 0, 0, 0)
program = Program(len(code), ctypes.addressof(buffer))
assert libc.prctl(22, 2, ctypes.byref(program), 0, 0) == 0
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize(
    ("missing", "says"),
    [(444, "no Landlock"), (446, "Landlock: the process could not be confined"), ("seccomp", "system call filter")],
)
@pytest.mark.parametrize("required", [True, False])
def test_without_what_is_required_nothing_runs(missing: int | str, says: str, required: bool, tmp_path: Path) -> None:
    from marple.sandboxes.inside.syscalls import NUMBERS

    number = NUMBERS[os.uname().machine][missing] if isinstance(missing, str) else missing
    script = tmp_path / "program.py"
    script.write_text("print('it runs')")
    argument = boot_argument(
        Program("test", script=script),
        root="/",
        sys_path=(),
        rlimits={},
        read=["/usr", "/lib", "/lib64", sys.base_prefix, str(tmp_path)],
        write=(),
        required=required,
    )
    command = [sys.executable, "-I", "-B", str(BOOT), argument]
    ended = subprocess.run(
        [sys.executable, "-I", "-c", MISSING, str(number), *command],
        env={},
        capture_output=True,
        text=True,
        check=False,
    )
    if required:
        assert (ended.returncode, ended.stdout) == (NOT_CONFINED, "")
        assert ended.stderr.startswith("confinement: ")
        assert says in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
    else:
        assert (ended.returncode, ended.stdout) == (0, "it runs\n")


def test_a_module_is_started_with_its_root(tmp_path: Path) -> None:
    (tmp_path / "one_program.py").write_text("def main(root):\n    print('started on', root)\n")
    argument = boot_argument(
        Program("test", module="one_program"),
        root="/nowhere",
        sys_path=[str(tmp_path)],
        rlimits={},
        read=["/usr", "/lib", "/lib64", sys.base_prefix, str(tmp_path)],
        write=(),
    )
    command = [sys.executable, "-I", "-B", str(BOOT), argument]
    ended = subprocess.run(command, env={}, capture_output=True, text=True, check=True)
    assert ended.stdout == "started on /nowhere\n"


def test_the_channel_is_left_alone(tmp_path: Path) -> None:
    ended = confined("said['read'] = sys.stdin.readline()", tmp_path)
    assert json.loads(ended.stdout) == {"read": ""}
    assert ended.stderr == ""
