"""A disk that refuses: typed errors that name the path and the next step, and a trace that stays readable."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from marple.errors import StorageError
from marple.traces import RunFolder

# A file size limit is the full disk that every user can make: a write stops half way with an OSError.
FULL = """
import json, resource, sys
from pathlib import Path
from marple.errors import StorageError
from marple.traces import RunFolder
report = {}
run = RunFolder.create(Path(sys.argv[1]), "r", {})
run.append("run_start", {})
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))
try:
    while True:
        run.append("tool_call", {"text": "x" * 3000})
except StorageError as error:
    report["append"] = str(error)
report["events"] = len(run.events())
report["readable"] = len(RunFolder.open(run.path).events())
report["torn"] = RunFolder.open(run.path).torn
for name, write in {
    "blob": lambda: run.put_blob(b"x" * 50_000, "text/plain"),
    "result": lambda: run.write_result({"text": "x" * 50_000}),
}.items():
    try:
        write()
    except StorageError as error:
        report[name] = str(error)
report["status"] = run.status
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
report["next"] = run.append("error", {"message": "disk full"}).id
report["left"] = sorted(path.name for path in run.path.rglob("*"))
print(json.dumps(report))
"""


def test_when_the_disk_is_full_the_trace_stays_whole_and_writable(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=True, timeout=60
    )
    report = json.loads(done.stdout)

    assert "events.jsonl" in report["append"]
    assert "ulimit -f" in report["append"]
    assert report["events"] == report["readable"] > 3
    assert report["torn"] is None
    assert "blobs/" in report["blob"]
    assert "result.json" in report["result"]
    assert report["status"] == "running"
    assert report["next"] == f"E{report['events'] + 1}"
    assert not [name for name in report["left"] if name.endswith(".tmp") or len(name) == 64]


def test_a_disk_with_no_room_for_a_run_stops_before_it_starts(tmp_path: Path) -> None:
    code = (
        "import resource, sys; from pathlib import Path; from marple.traces import RunFolder\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))\n"
        "RunFolder.create(Path(sys.argv[1]), 'r', {'brief': 'x' * 1000})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )

    assert "marple.errors.StorageError: cannot write" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_runs_folder_under_a_file_is_refused_with_the_path_and_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match=r"file/runs/r.*choose another runs folder"):
        RunFolder.create(tmp_path / "file" / "runs", "r", {})


READ_ONLY = """
import os, sys
from pathlib import Path
from marple.traces import RunFolder
if os.getuid() == 0:
    os.setuid(65534)  # root may write anywhere
RunFolder.create(Path(sys.argv[1]), "r", {})
"""


def test_a_folder_without_write_permission_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "runs"
    root.mkdir(mode=0o555)
    done = subprocess.run(
        [sys.executable, "-c", READ_ONLY, str(root)], capture_output=True, text=True, timeout=60, check=False
    )

    assert "StorageError: cannot write" in done.stderr
    assert "change its permissions" in done.stderr


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB, where this process may mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(command, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a small file system needs root and a kernel that lets it")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def append_for_ever(run: RunFolder) -> None:
    while True:
        run.append("tool_call", {"text": "x" * 3000})


def test_on_a_full_file_system_the_run_ends_readable_and_goes_on_when_there_is_room(tiny_disk: Path) -> None:
    (tiny_disk / "ballast").write_bytes(b"x" * 20_000)
    with RunFolder.create(tiny_disk, "r", {}) as run:
        run.append("run_start", {})
        with pytest.raises(StorageError, match="No space left on device; free some disk space"):
            append_for_ever(run)
        count = len(run.events())
        reader = RunFolder.open(run.path)
        assert len(reader.events()) == count > 1
        assert reader.torn is None

        (tiny_disk / "ballast").unlink()
        assert run.append("error", {"message": "disk full"}).id == f"E{count + 1}"
        run.write_result({"status": "error"})
    assert RunFolder.open(run.path).status == "done"
