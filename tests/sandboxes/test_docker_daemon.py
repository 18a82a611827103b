"""What a daemon must be able to do, what is said about an old one, and whose a container is."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from marple.errors import SandboxUnavailableError
from marple.sandboxes.docker import DockerBackend
from marple.sandboxes.docker.daemon import Daemon, find_daemon, problems, warnings
from marple.sandboxes.docker.owner import labels, owner_is_gone

GOOD: dict[str, Any] = {
    "OSType": "linux",
    "SecurityOptions": ["name=seccomp,profile=default"],
    "MemoryLimit": True,
    "PidsLimit": True,
    "SwapLimit": True,
    "Runtimes": {"runc": {}},
}


def daemon(engine: str = "29.4.2", runc: str = "1.3.3", **info: Any) -> Daemon:
    version = {
        "Version": engine,
        "Components": [{"Name": "Engine", "Version": engine}, {"Name": "runc", "Version": runc}],
    }
    return Daemon("unix:///x", "1.41", {**GOOD, **info}, version)


@pytest.mark.parametrize(
    ("info", "words"),
    [
        ({"OSType": "windows"}, "switch Docker to Linux containers"),
        ({"SecurityOptions": ["name=apparmor"]}, "seccomp"),
        ({"SecurityOptions": None}, "seccomp"),
        ({"MemoryLimit": False}, "cgroup_enable=memory"),
        ({"PidsLimit": False}, "delegating"),
    ],
)
def test_what_a_daemon_lacks_is_said_with_how_to_get_it(info: dict[str, Any], words: str) -> None:
    (only,) = problems({**GOOD, **info})
    assert words in only


def test_a_daemon_that_has_everything_lacks_nothing() -> None:
    assert problems(GOOD) == []
    assert warnings(daemon()) == []


@pytest.mark.parametrize("engine", ["20.10.24+dfsg1", "28.5.0", "29.4.1", "unknown"])
def test_an_old_engine_is_warned_about(engine: str) -> None:
    (only,) = warnings(daemon(engine))
    assert engine in only
    assert "CVE-2026-31431" in only


@pytest.mark.parametrize(
    ("runc", "old"),
    [
        *[(version, True) for version in ("1.1.5+ds1", "1.1.15", "1.2.7", "1.3.2", "1.0.0-rc93", "1.4.0-rc.2", "?")],
        *[(version, False) for version in ("1.2.8", "1.2.9", "1.3.3", "1.4.0", "1.4.0-rc.3", "1.5.1", "2.0.0")],
    ],
)
def test_an_old_runc_is_warned_about(runc: str, old: bool) -> None:
    found = warnings(daemon(runc=runc))
    assert bool(found) is old
    assert all("CVE-2025-31133" in one for one in found)


def test_swap_without_a_limit_is_warned_about_where_there_is_swap() -> None:
    assert warnings(daemon(SwapLimit=False), swap=False) == []
    (only,) = warnings(daemon(SwapLimit=False), swap=True)
    assert "swap" in only


# ---------------------------------------------------------------------------------------------- finding one


def refusal() -> str:
    """Why Docker cannot be used, as doctor says it."""
    with pytest.raises(SandboxUnavailableError) as caught:
        find_daemon()
    status = DockerBackend().probe()
    assert not status.available
    assert status.reason == str(caught.value)
    return status.reason


def test_no_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert "install Docker Engine and start it" in refusal()


def test_a_daemon_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    with socket.socket(socket.AF_UNIX) as nobody:
        nobody.bind(f"{tmp_path}/s")
        assert "systemctl start docker" in refusal()


def test_a_daemon_elsewhere_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "tcp://127.0.0.1:2375")
    assert "must be on this machine" in refusal()


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_socket_this_user_may_not_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(f"/tmp/marple-test-{os.getpid()}.sock")
    with socket.socket(socket.AF_UNIX) as private:
        private.bind(str(path))
        try:
            path.chmod(0o600)
            monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
            os.seteuid(64321)
            try:
                with pytest.raises(SandboxUnavailableError, match="usermod -aG docker"):
                    find_daemon()
            finally:
                os.seteuid(0)
        finally:
            path.unlink()


def test_no_docker_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX) as there:
        there.bind(f"{tmp_path}/s")
        there.listen()
        monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
        monkeypatch.setitem(sys.modules, "docker", None)
        assert "pip install 'docker" in refusal()


# ---------------------------------------------------------------------------------------------- owners


def test_a_container_of_this_process_has_an_owner() -> None:
    assert not owner_is_gone(labels())
    assert labels()["marple.run"] != labels()["marple.run"]


def test_a_container_of_a_process_that_ended_has_none() -> None:
    program = "from marple.sandboxes.docker.owner import labels; import json; print(json.dumps(labels()))"
    import json

    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, text=True).stdout
    assert owner_is_gone(json.loads(printed))


def test_a_number_that_another_process_has_now_is_no_owner() -> None:
    assert owner_is_gone({**labels(), "marple.started": "1"})


def test_a_container_from_before_the_machine_was_started_anew_has_none() -> None:
    boot, _, namespace = labels()["marple.system"].partition("/")
    assert owner_is_gone({**labels(), "marple.system": f"{boot[::-1]}/{namespace}"})


def test_what_belongs_to_processes_that_cannot_be_seen_is_left_alone() -> None:
    boot, _, _ = labels()["marple.system"].partition("/")
    assert not owner_is_gone({**labels(), "marple.system": f"{boot}/pid:[1]", "marple.owner": "999999"})
    assert not owner_is_gone({**labels(), "marple.owner": "x"})
