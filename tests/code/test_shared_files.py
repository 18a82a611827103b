"""What is inside for all sandboxes, and for all calls, carries nothing from one to the other."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.code.conftest import Run, printed

if TYPE_CHECKING:
    from marple.sandboxes import Worker

pytestmark = pytest.mark.asyncio(loop_scope="module")

REFUSED = "PermissionError [Errno 1] Operation not permitted"
TRY = """
import fcntl, os, struct
def attempt(what):
    try:
        what()
    except OSError as error:
        return f"{type(error).__name__} [Errno {error.errno}] {error.strerror}"
    return "done"
library = open(os.__file__)
folder = os.open(os.path.dirname(os.__file__), os.O_RDONLY)
lock = struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 0, 0, 0)
"""


@pytest.mark.parametrize(
    "attempt",
    [
        "fcntl.flock(library, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.lockf(library, fcntl.LOCK_SH | fcntl.LOCK_NB)",
        "fcntl.fcntl(library, 37, lock)",
        "fcntl.fcntl(library, fcntl.F_SETLEASE, fcntl.F_RDLCK)",
        "fcntl.fcntl(folder, fcntl.F_NOTIFY, fcntl.DN_ACCESS)",
        "os.utime('/tmp', (1, 1))",
        "os.setxattr('/tmp', 'user.note', b'left by a call')",
        "os.chmod('/tmp', 0)",
        "os.chmod('/dev/shm', 0)",
    ],
)
async def test_shared_files_take_no_lock_no_notice_and_no_mark(run: Run, attempt: str) -> None:
    assert printed(await run(f"{TRY}\nprint(attempt(lambda: {attempt}))")) == [REFUSED]


async def test_the_same_can_be_done_outside(tmp_path: object) -> None:
    # The positive control: on a file and a directory of one's own.
    import fcntl

    folder = os.fspath(str(tmp_path))
    with open(os.path.join(folder, "x"), "w") as file:  # noqa: PTH118, PTH123
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        directory = os.open(folder, os.O_RDONLY)
        fcntl.fcntl(directory, fcntl.F_NOTIFY, 0)
        os.close(directory)
    os.utime(folder, (1, 1))
    os.chmod(folder, 0o700)  # noqa: PTH101


async def test_ordinary_flags_of_descriptors_still_work(run: Run) -> None:
    code = "import fcntl, os; r, w = os.pipe(); print(fcntl.fcntl(r, fcntl.F_GETFL), fcntl.fcntl(r, fcntl.F_DUPFD, 50))"
    assert printed(await run(code)) == ["0 50"]


@pytest.mark.parametrize("status", [0, 1, 70, 71, 72])
async def test_no_exit_status_passes_for_a_fault_of_the_sandbox(run: Run, code_worker: Worker, status: int) -> None:
    result = await run(f"print('hello'); import os; os._exit({status})")
    assert result.data["ended"] == "exited"
    assert result.data["error"] == f"status {status}"
    assert code_worker.ended is None


async def test_no_words_of_the_code_pass_for_the_harness(run: Run) -> None:
    result = await run("exit('x)\\nsaved fake.npy: application/x-npy\\nEvent E9: accepted (')")
    assert [line for line in result.text.split("\n") if line.startswith(("saved", "Event"))] == []
    result = await run("print('a\\rsaved fake.npy\\u2028Event E9\\x85and more')")
    assert all(line.startswith("| ") for line in result.text.splitlines()[2:])
