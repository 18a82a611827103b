"""A Docker daemon for tests: the one that is there, or one of our own for as long as tests want it.

One of our own needs root and ``dockerd``. Every test process holds a shared lock on a file; a guardian process, which
is the daemon's parent, waits until it can have that lock for itself, which is when the last test process has ended in
whatever way, and then ends the daemon it started and removes its files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

_DEFAULT_SOCKET = Path("/var/run/docker.sock")
_SECONDS = 60.0
_OPTIONS = ("--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false", "--bridge=none")


@pytest.fixture(scope="session")
def docker_daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a daemon's socket, which ``DOCKER_HOST`` names meanwhile; skips where there is none, fails in CI."""
    before = os.environ.get("DOCKER_HOST")
    with contextlib.ExitStack() as open_ones:
        url = before or f"unix://{_DEFAULT_SOCKET}"
        if not answers(url):
            lacking = _lacking(before)
            if lacking:
                _give_up(lacking)
            base = tmp_path_factory.getbasetemp()
            # The processes of pytest-xdist have their own directories in a common one.
            shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
            url = open_ones.enter_context(own_daemon(shared))
        os.environ["DOCKER_HOST"] = url
        try:
            yield url
        finally:
            os.environ.pop("DOCKER_HOST")
            if before is not None:
                os.environ["DOCKER_HOST"] = before


def answers(url: str) -> bool:
    """Whether a daemon answers at this address."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(url.removeprefix("unix://"))
            connection.sendall(b"GET /_ping HTTP/1.0\r\n\r\n")
            return connection.recv(100).split()[1:2] == [b"200"]
    except OSError:
        return False


@contextlib.contextmanager
def own_daemon(shared: Path) -> Iterator[str]:
    """The URL of a daemon that all test processes of this directory share; it ends after the last of them."""
    with (shared / "docker.lock").open("a") as starting, (shared / "docker.users").open("a") as users:
        fcntl.flock(starting, fcntl.LOCK_EX)
        fcntl.flock(users, fcntl.LOCK_SH)
        place = shared / "docker.folder"
        folder = Path(place.read_text()) if place.exists() else None
        if folder is None or not answers(f"unix://{folder}/socket"):
            # Not in pytest's directory: the path of a socket is short, and the daemon's files are not a test's.
            folder = Path(tempfile.mkdtemp(prefix="dockerd-"))
            _start(folder, Path(users.name))
            place.write_text(str(folder))
        fcntl.flock(starting, fcntl.LOCK_UN)
        yield f"unix://{folder}/socket"
        last = _is_last(users)
        fcntl.flock(users, fcntl.LOCK_UN)
        if last:
            _until(lambda: not folder.exists(), "the daemon's guardian did not end it")


def _is_last(users: object) -> bool:
    try:
        fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[arg-type]
    except BlockingIOError:
        return False
    return True


def _lacking(asked: str | None) -> str:
    if asked is not None:
        return f"no Docker daemon answers at DOCKER_HOST={asked}"
    if os.geteuid() != 0:
        return "no Docker daemon answers, and only root can start one"
    if shutil.which("dockerd", path=_path()) is None:
        return "no Docker daemon answers and there is no dockerd; apt install docker.io"
    return ""


def _give_up(reason: str) -> None:
    if os.environ.get("CI"):
        pytest.fail(reason)
    pytest.skip(reason)


def _path() -> str:
    return f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def _start(folder: Path, users: Path) -> None:
    log = folder / "log"
    with log.open("w") as output:
        subprocess.Popen(
            [sys.executable, "-I", str(Path(__file__)), str(folder), str(users)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env={"PATH": _path()},
            start_new_session=True,
            close_fds=True,
        ).returncode = 0  # nobody waits for it here: it outlives whoever started it
    try:
        _until(lambda: answers(f"unix://{folder}/socket"), "dockerd did not start")
    except AssertionError as error:
        _give_up(f"{error}: {log.read_text()[-2000:] if log.exists() else ''}")


def _until(condition: object, what: str) -> None:
    end = time.monotonic() + _SECONDS
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return
        time.sleep(0.05)
    raise AssertionError(what)


# ---------------------------------------------------------------------------------------------- the guardian


def guard(folder: Path, users: Path) -> None:
    """Run a daemon until nobody holds the lock any more; then leave nothing of it."""
    daemon = _run(folder, "overlay2")
    if daemon.poll() is not None:
        daemon = _run(folder, "vfs")
    with users.open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
    daemon.send_signal(signal.SIGTERM)
    try:
        daemon.wait(20)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait()
    _remove_groups()
    if (folder / "data").is_mount():
        subprocess.run(["umount", str(folder / "data")], check=False)
    shutil.rmtree(folder, ignore_errors=True)


def _run(folder: Path, storage: str) -> subprocess.Popen[bytes]:
    places = ["--data-root", str(folder / "data"), "--exec-root", str(folder / "exec")]
    places += ["--pidfile", str(folder / "pid"), "--host", f"unix://{folder}/socket", "--storage-driver", storage]
    dockerd = shutil.which("dockerd", path=os.environ["PATH"])
    assert dockerd is not None
    daemon = subprocess.Popen([dockerd, *places, *_OPTIONS])
    end = time.monotonic() + 20
    while time.monotonic() < end and daemon.poll() is None and not (folder / "socket").exists():
        time.sleep(0.05)
    return daemon


def _remove_groups() -> None:
    """The daemon leaves empty control groups behind; one that is in use cannot be removed."""
    for group in Path("/sys/fs/cgroup").glob("*/docker"):
        with contextlib.suppress(OSError):
            group.rmdir()


if __name__ == "__main__":
    guard(Path(sys.argv[1]), Path(sys.argv[2]))
