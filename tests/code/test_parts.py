"""The parts alone: what is kept of output, what may be saved, how a directory is emptied, when code is refused."""

# ruff: noqa: PTH101, PTH102, PTH211

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO, cast

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from marple.errors import ToolError
from marple.sandboxes import StagedTarget
from marple.tools import wire
from marple.tools.code.artifacts import DTYPES, NAME, Unacceptable, look_at, npy_header
from marple.tools.code.printed import Printed
from marple.tools.code.tool import python, python_spec
from marple.tools.code.wiping import wipe
from marple.tools.contract import discover_tools
from tests.code.conftest import inside_scripts


@given(st.lists(st.binary(max_size=40), max_size=30))
def test_the_beginning_and_the_end_are_kept_whatever_the_pieces(pieces: list[bytes]) -> None:
    printed, whole = Printed(limit=64), b"".join(pieces)
    for piece in pieces:
        printed.add(piece)
    assert printed.total == len(whole)
    assert printed.left_out == max(0, len(whole) - 64)
    text = printed.text()
    if len(whole) <= 64:
        assert text == whole.decode("utf-8", "replace")
    else:
        assert text.startswith(whole[:32].decode("utf-8", "replace"))
        assert text.endswith(whole[-32:].decode("utf-8", "replace"))
        assert f"[... {len(whole) - 64:,} bytes left out ...]" in text


@pytest.mark.parametrize("descr", DTYPES)
@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (2, 3, 4)])
def test_an_array_is_written_as_numpy_writes_it(descr: str, shape: tuple[int, ...], tmp_path: Path) -> None:
    array = np.zeros(shape, np.dtype(f"<{descr}"))
    path = tmp_path / "a.npy"
    np.save(path, array, allow_pickle=False)
    data = npy_header(descr, shape) + array.tobytes()
    assert data == path.read_bytes()
    assert look_at("a.npy", "application/x-npy", data).about == f"{DTYPES[descr]} {shape}"


@settings(max_examples=300)
@given(st.binary(max_size=200), st.sampled_from(["application/x-npy", "image/png", "text/plain", "text/html"]))
def test_any_bytes_are_accepted_or_refused_without_another_error(data: bytes, media_type: str) -> None:
    for start in (
        b"",
        b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (",
        b"\x89PNG\r\n\x1a\n",
    ):
        try:
            saved = look_at("a.txt", media_type, start + data)
        except Unacceptable:
            continue
        assert (saved.media_type, saved.data) == ("text/plain", start + data)


@given(st.text(max_size=120))
def test_a_name_that_is_accepted_is_harmless(name: str) -> None:
    if NAME.match(name):
        assert name.isascii()
        assert name.isprintable()
        assert not set(name) & set("/\\:<>&\"'$`|;")
        assert name[0].isalnum()


@pytest.mark.parametrize("name", ["a.txt\n", "../a.txt", "-a.txt", ".a.txt", "\u202ea.txt", "a\0.txt", "", "a.png"])
def test_names_that_are_not_accepted(name: str) -> None:
    with pytest.raises(Unacceptable):
        look_at(name, "text/plain", b"x")


def test_a_directory_is_emptied_whatever_is_in_it(tmp_path: Path) -> None:
    here = Path.cwd()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "stays").write_text("x")
    inside = tmp_path / "inside"
    inside.mkdir()
    try:
        os.chdir(inside)
        os.symlink(outside, "link")
        os.mkfifo("pipe")
        Path("\udcff\n").write_text("odd name")
        for number in range(50):
            Path(str(number)).mkdir()
        for _ in range(600):
            os.mkdir("deep" * 20)
            os.chdir("deep" * 20)
        os.symlink("..", "up")
        os.chmod(".", 0)
        os.chdir(inside)
        os.chmod("7", 0)
        wipe(inside)
    finally:
        os.chdir(here)
    assert list(inside.iterdir()) == []
    assert (outside / "stays").read_text() == "x"


def test_python_is_a_tool_by_the_contract_and_found_by_no_tool_worker() -> None:
    spec = python_spec()
    assert (spec.name, spec.rung, spec.parallel) == ("python", 4, False)
    assert set(spec.parameters["properties"]) == {"code", "timeout_seconds", "keep_state"}
    assert spec.parameters["required"] == ["code"]
    for promised in ("target.generate", "target.capture", "save(name, thing)", "Example", "no evidence"):
        assert promised in spec.description
    assert "python" not in discover_tools()
    with pytest.raises(ToolError, match="in the code worker only"):
        python(None, seed=1, code="print(1)")  # type: ignore[arg-type]


LANDLOCKS = {
    "no Landlock": "def abi(): return 0\n",
    "no signal scope": "def abi(): return 5\n",
    "no signal scope after all": "def abi(): return 7\ndef restrict(read, write): return {'scopes': False}\n",
    "a lie": "def abi(): return 7\ndef restrict(read, write): return {'scopes': True}\n",
    "no script": None,
}


@pytest.mark.parametrize("lack", LANDLOCKS)
def test_without_a_confinement_that_holds_no_code_runs(staged: StagedTarget, tmp_path: Path, lack: str) -> None:
    source = LANDLOCKS[lack]
    for name in ("seccomp.py", "syscalls.py"):
        (tmp_path / name).write_text((inside_scripts() / name).read_text())
    if source is not None:
        (tmp_path / "landlock.py").write_text(source)
    said, status, diagnostics = talk(staged.root, tmp_path, {"code": "print('it ran')"})
    assert "it ran" not in str(said)
    if lack in ("a lie", "no signal scope after all"):
        assert status == 71
        said_why = "the kernel accepts a Landlock scope for signals and does not keep to it"
        assert f"confinement: {said_why if lack == 'a lie' else 'Landlock here keeps no signals inside'}" in diagnostics
    else:
        assert said[0]["error"]["code"] == "unconfined"


def test_the_process_that_is_copied_has_one_thread(staged: StagedTarget, tmp_path: Path) -> None:
    with supervisor(staged.root, inside_scripts(), tmp_path) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(wire.encode_frame(HELLO))
        process.stdin.flush()
        answer = wire.read_frame(cast(BinaryIO, process.stdout))
        assert answer is not None
        assert "ok" in answer
        assert len(list(Path(f"/proc/{process.pid}/task").iterdir())) == 1
        process.stdin.close()
        assert process.wait(timeout=60) == 0


HELLO = {"id": "0" * 32, "op": "hello", "config": {"target": "target", "device": "cpu"}}


def talk(root: Path, inside: Path, arguments: dict[str, Any]) -> tuple[list[dict[str, Any]], int, str]:
    """Say hello to a supervisor and ask for one call; its answers, its exit status and what it printed."""
    call = {"id": "1" * 32, "op": "call", "tool": "python", "arguments": arguments, "seed": 1}
    with supervisor(root, inside, inside) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(wire.encode_frame(HELLO) + wire.encode_frame(call))
        process.stdin.flush()
        answers: list[dict[str, Any]] = []
        while len(answers) < 2 and (answer := wire.read_frame(cast(BinaryIO, process.stdout))) is not None:
            if "progress" not in answer:
                answers.append(answer)
        process.stdin.close()
        return answers, process.wait(timeout=60), process.stderr.read().decode()


def supervisor(root: Path, inside: Path, temporary: Path) -> subprocess.Popen[bytes]:
    """A supervisor without a sandbox around it; no code is run in it."""
    script = (
        "import sys, pathlib\nfrom marple.tools.code.supervisor import main\n"
        "main(sys.argv[1], inside=pathlib.Path(sys.argv[2]))"
    )
    return subprocess.Popen(
        [sys.executable, "-I", "-B", "-c", script, str(root), str(inside)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={"TMPDIR": str(temporary)},
        start_new_session=True,
    )
