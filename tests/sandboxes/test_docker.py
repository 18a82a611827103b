"""Real containers: what is inside, how they end, what is left of them."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from marple.errors import SandboxError, SandboxUnavailableError
from marple.sandboxes.backend import Limits, Program
from marple.sandboxes.docker import PROTECTIONS, DockerBackend, DockerOptions
from marple.sandboxes.docker import daemon as daemons
from marple.sandboxes.docker.container import DockerContainer, exit_status
from marple.sandboxes.docker.images import skeleton, skeleton_image, user_image
from marple.sandboxes.docker.owner import LABEL, sweep
from marple.sandboxes.scratch import claim_scratch

docker: Any = importlib.import_module("docker")
pytestmark = pytest.mark.usefixtures("docker_daemon")

PROGRAM = Program("contained", script=Path(__file__).parent / "contained_program.py")
LIMITS = Limits(memory_gib=0.25, scratch_mib=8, processes=32, descriptors=128, device="cpu")
BACKEND = DockerBackend(DockerOptions())


@pytest.fixture
def root() -> Iterator[Path]:
    """A staged directory below a private one."""
    scratch = claim_scratch()
    (scratch.path / "target").mkdir()
    (scratch.path / "target" / "config.json").write_text("{}")
    (scratch.path / "cache").mkdir(mode=0o700)
    scratch.path.chmod(0o555)
    yield scratch.path
    scratch.remove()


@pytest.fixture
def client(docker_daemon: str) -> Iterator[Any]:
    with contextlib.closing(docker.APIClient(base_url=docker_daemon, version="auto")) as client:
        yield client


@contextlib.asynccontextmanager
async def running(
    root: Path, *, backend: DockerBackend = BACKEND, limits: Limits = LIMITS
) -> AsyncIterator[DockerContainer]:
    launched = await backend.launch(root, limits, PROGRAM)
    try:
        yield launched
    finally:
        launched.kill()
        await asyncio.wait_for(launched.wait(), 30)
        launched.close()
        assert not exists(launched.container)


def exists(container: str) -> bool:
    with contextlib.closing(docker.APIClient(base_url=os.environ["DOCKER_HOST"], version="auto")) as client:
        return any(one["Id"] == container for one in client.containers(all=True))


async def ask(launched: DockerContainer, *command: object) -> Any:
    launched.send(json.dumps(command).encode() + b"\n")
    line = await asyncio.wait_for(launched.replies.readline(), 60)
    if not line:
        raise EOFError((await launched.diagnostics.read()).decode())
    return json.loads(line)


# ---------------------------------------------------------------------------------------------- inside


async def test_what_is_inside(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARPLE_CANARY", "4711")
    async with running(root) as launched:
        told = await ask(launched, "tell")
    assert told["uid"] == 65532
    assert set(told["groups"]) <= {65532}
    assert "4711" not in str(told["environment"])
    assert told["hostname"] == "sbx"
    assert told["version"] == sys.version
    assert told["root"] == ["cache", "target"]


@pytest.mark.parametrize(("without", "empty"), [({"landlock"}, True), ({"landlock", "hidden"}, False)])
async def test_what_docker_writes_into_a_container_is_covered(without: set[str], empty: bool, root: Path) -> None:
    async with running(root, backend=dataclasses.replace(BACKEND, without=frozenset(without))) as launched:
        found = [await ask(launched, "read", f"/etc/{name}") for name in ("hosts", "hostname")]
    assert (found == ["", ""]) is empty


async def test_the_second_layer_is_there_too(root: Path) -> None:
    async with running(root) as launched:
        assert await ask(launched, "read", "/proc/self/mountinfo") == "Permission denied"
        assert filters(launched) == 2
    without = dataclasses.replace(BACKEND, without=frozenset({"landlock", "seccomp"}))
    async with running(root, backend=without) as launched:
        assert str(root) in await ask(launched, "read", "/proc/self/mountinfo")
        assert filters(launched) == 1


def filters(launched: DockerContainer) -> int:
    """How many system call filters the program is under, as the kernel says it outside."""
    if launched.pid is None:
        pytest.skip("the container's processes cannot be seen here")
    (child,) = Path(f"/proc/{launched.pid}/task/{launched.pid}/children").read_text().split()
    (line,) = [one for one in Path(f"/proc/{child}/status").read_text().splitlines() if "Seccomp_filters" in one]
    return int(line.split()[1])


async def test_only_temporary_files_can_be_written(root: Path) -> None:
    async with running(root) as launched:
        for path in ("/tmp/x", "/dev/shm/x", "/sbx/root/cache/x"):
            assert await ask(launched, "write", path) == "written", path
        for path in ("/x", "/etc/x", "/usr/x", "/sbx/x", "/sbx/root/x", "/sbx/root/target/config.json", "/python/x"):
            assert await ask(launched, "write", path) != "written", path
        assert await ask(launched, "fill", "/tmp") == "No space left on device"


async def test_the_stamp_says_what_holds_and_what_was_verified(root: Path) -> None:
    async with running(root) as launched:
        stamp = dict(launched.stamp)
    assert stamp["backend"] == "docker"
    assert stamp["isolation"] == "full"
    assert stamp["network"] == "none"
    assert stamp["memory"] == {"by": "container", "bytes": 2**28}
    assert stamp["processes"] == {"by": "container", "most": 32}
    assert stamp["no_new_privs"] is True
    assert stamp["capabilities"] == "none"
    assert "docker" in stamp["versions"]
    assert "container" in stamp["verified"]
    if launched.pid is not None and os.geteuid() == 0:
        assert {"uid", "seccomp", "capabilities", "namespaces", "mounts", "environment"} <= set(stamp["verified"])
    json.dumps(stamp)


# ---------------------------------------------------------------------------------------------- how it ends


async def test_memory_is_limited_and_the_end_says_so(root: Path) -> None:
    async with running(root) as launched:
        with pytest.raises(EOFError):
            await ask(launched, "eat", 1024)
        assert await asyncio.wait_for(launched.wait(), 30) == -signal.SIGKILL
        assert launched.cause == "it ran out of memory (the limit is 256 MiB)"


async def test_temporary_files_count_as_memory(root: Path) -> None:
    limits = dataclasses.replace(LIMITS, scratch_mib=1024, memory_gib=0.125)
    async with running(root, limits=limits) as launched:
        with pytest.raises(EOFError):
            await ask(launched, "fill", "/tmp")
        await asyncio.wait_for(launched.wait(), 30)
        assert launched.cause is not None
        assert "128 MiB" in launched.cause


async def test_an_end_that_was_not_for_its_memory_does_not_say_so(root: Path) -> None:
    async with running(root) as launched:
        assert await ask(launched, "eat", 64) == "eaten"
        with pytest.raises(EOFError):
            await ask(launched, "die", signal.SIGKILL)
        assert await launched.wait() == -signal.SIGKILL
        assert launched.cause is None


async def test_processes_are_limited_and_orphans_are_reaped(root: Path) -> None:
    async with running(root) as launched:
        assert 10 < await ask(launched, "fork", 200) < 32
        # Zombies count: without somebody to reap them, the second half could not be started.
        for _ in range(6):
            assert await ask(launched, "orphan", 10) == "left"
            await asyncio.sleep(0.2)
        assert await ask(launched, "fork", 20) == 20


@pytest.mark.parametrize(
    ("command", "status"), [(("end", 0), 0), (("end", 3), 3), (("die", signal.SIGSEGV), -11), (("die", 9), -9)]
)
async def test_the_status_arrives(command: tuple[object, ...], status: int, root: Path) -> None:
    async with running(root) as launched:
        with pytest.raises(EOFError):
            await ask(launched, *command)
        assert await launched.wait() == status


def test_dockers_codes_for_signals() -> None:
    assert [exit_status(code) for code in (0, 1, 127, 128, 137, 139, 255)] == [0, 1, 127, 128, -9, -11, 255]


async def test_a_flood_is_bounded_and_does_not_stop_the_answers(root: Path) -> None:
    async with running(root) as launched:
        launched.send(json.dumps(["flood", 64]).encode() + b"\n")
        await asyncio.sleep(1)
        assert len(launched.diagnostics._buffer) < 1024 * 1024  # type: ignore[attr-defined]
        taken = 0
        while taken < 64 * 2**20:
            taken += len(await asyncio.wait_for(launched.diagnostics.read(2**20), 30))
        assert await launched.replies.readline() == b'"printed"\n'


async def test_closing_the_channel_ends_it(root: Path) -> None:
    launched = await BACKEND.launch(root, LIMITS, PROGRAM)
    launched.close()
    assert await asyncio.wait_for(launched.wait(), 30) == 0
    assert not exists(launched.container)


async def test_kill_can_be_repeated_and_ends_what_closed_its_channel(root: Path) -> None:
    async with running(root) as launched:
        launched.send(b'["shut"]\n')
        await asyncio.sleep(0.5)
        for _ in range(3):
            launched.kill()
        assert await asyncio.wait_for(launched.wait(), 30) == -signal.SIGKILL
        assert await launched.replies.read() == b""
        launched.kill()
        launched.close()


async def test_a_launch_that_is_cancelled_leaves_nothing(root: Path, client: Any) -> None:
    before = ours(client)
    for delay in (0.0, 0.02, 0.05, 0.1, 0.2):
        launching = asyncio.create_task(BACKEND.launch(root, LIMITS, PROGRAM))
        await asyncio.sleep(delay)
        launching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            launched = await launching
            launched.kill()
    for _ in range(200):
        if ours(client) == before:
            return
        await asyncio.sleep(0.05)
    raise AssertionError("a container was left")


def ours(client: Any) -> int:
    """The containers of this process."""
    mine = f"marple.owner={os.getpid()}"
    return len(client.containers(all=True, filters={"label": [f"{LABEL}=1", mine]}))


HOST = """
import asyncio, sys
from pathlib import Path
from marple.sandboxes.backend import Limits, Program
from marple.sandboxes.docker import DockerBackend, DockerOptions
async def main():
    root, script = map(Path, sys.argv[1:])
    limits = Limits(memory_gib=0.25, device="cpu")
    launched = await DockerBackend(DockerOptions()).launch(root, limits, Program("contained", script=script))
    print(launched.container, flush=True)
    await asyncio.sleep(600)
asyncio.run(main())
"""


async def test_a_host_that_is_killed_leaves_a_stopped_container_that_the_next_one_removes(
    root: Path, client: Any
) -> None:
    host = subprocess.Popen(
        [sys.executable, "-c", HOST, str(root), str(PROGRAM.script)], stdout=subprocess.PIPE, text=True
    )
    assert host.stdout is not None
    container = host.stdout.readline().strip()
    assert exists(container)
    assert container not in sweep(client)
    assert exists(container)
    host.kill()
    host.wait()
    host.stdout.close()
    for _ in range(200):
        if not is_running(client, container):
            break
        await asyncio.sleep(0.05)
    assert not is_running(client, container)
    async with running(root):
        assert not exists(container)


def is_running(client: Any, container: str) -> bool:
    try:
        return bool(client.inspect_container(container)["State"]["Running"])
    except docker.errors.NotFound:
        # Another process that uses this daemon has swept it.
        return False


# ---------------------------------------------------------------------------------------------- refusals


def test_a_runtime_the_daemon_does_not_have_is_refused_with_those_it_has() -> None:
    status = DockerBackend(DockerOptions(runtime="runsc")).probe()
    assert not status.available
    assert "it has: " in status.reason
    assert "runc" in status.reason


def test_an_image_that_is_not_there_is_refused_with_how_to_build_it() -> None:
    status = DockerBackend(DockerOptions(image="marple-sandbox:none")).probe()
    assert not status.available
    assert "docker build --tag marple-sandbox:none" in status.reason


async def test_gpus_that_the_daemon_cannot_hand_in_are_refused(root: Path) -> None:
    if daemons.find_daemon().has_gpus:
        pytest.skip("this daemon can")
    with pytest.raises(SandboxUnavailableError, match="nvidia-ctk"):
        await BACKEND.launch(root, dataclasses.replace(LIMITS, device="cuda"), PROGRAM)
    assert "nvidia-ctk" in DockerBackend(DockerOptions(gpus=True)).probe().reason


async def test_a_directory_that_holds_the_daemons_socket_is_not_shown(docker_daemon: str) -> None:
    folder = Path(docker_daemon.removeprefix("unix://")).parent
    with pytest.raises(SandboxUnavailableError, match="socket"):
        await BACKEND.launch(folder, LIMITS, PROGRAM)


async def test_a_daemon_that_makes_another_container_is_refused_and_it_is_removed(
    root: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = docker.APIClient.create_container_from_config

    def generous(self: Any, config: dict[str, Any], *arguments: Any, **named: Any) -> Any:
        config = {**config, "HostConfig": {**config["HostConfig"], "CapAdd": ["SYS_ADMIN"]}}
        return honest(self, config, *arguments, **named)

    monkeypatch.setattr(docker.APIClient, "create_container_from_config", generous)
    before = len(client.containers(all=True))
    with pytest.raises(SandboxUnavailableError, match="HostConfig.CapAdd"):
        await BACKEND.launch(root, LIMITS, PROGRAM)
    assert len(client.containers(all=True)) == before


async def test_a_staged_directory_that_is_gone_is_an_error_and_leaves_nothing(client: Any, tmp_path: Path) -> None:
    before = len(client.containers(all=True))
    with pytest.raises(SandboxError, match="Docker"):
        await BACKEND.launch(tmp_path / "none", LIMITS, PROGRAM)
    assert len(client.containers(all=True)) == before


def test_the_image_is_made_once_and_a_false_one_is_refused(client: Any) -> None:
    first, again = skeleton_image(client), skeleton_image(client)
    assert first == again
    # Someone else's image under the name.
    other = client.import_image_from_data(skeleton()[:-1024] + bytes(2048), repository="marple-other", tag="x")
    assert other
    name = first.name
    client.tag("marple-other:x", "marple-skeleton", name.partition(":")[2], force=True)
    try:
        with pytest.raises(SandboxUnavailableError, match="not what Marple made"):
            skeleton_image(client)
    finally:
        client.tag(first.identity, "marple-skeleton", name.partition(":")[2], force=True)
        client.remove_image("marple-other:x", force=True)
    assert skeleton_image(client) == first


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ([], "has no label marple.python"),
        (["LABEL marple.python=/usr/bin/python3", "ENV API_KEY=sk-1"], "sets the variables API_KEY"),
        (["LABEL marple.python=/usr/bin/python3", "VOLUME /data"], "volumes"),
    ],
)
def test_an_image_that_was_not_built_from_the_dockerfile_is_refused(
    changes: list[str], words: str, client: Any
) -> None:
    client.import_image_from_data(skeleton(), repository="marple-test", tag="x", changes=changes)
    try:
        with pytest.raises(SandboxUnavailableError, match=words):
            user_image(client, "marple-test:x")
    finally:
        client.remove_image("marple-test:x", force=True)


def test_protections_can_only_be_taken_away_in_code() -> None:
    assert not DockerBackend().without
    assert "seccomp" in PROTECTIONS
    with pytest.raises(ValueError, match="secomp"):
        dataclasses.replace(BACKEND, without=frozenset({"secomp"}))


async def test_a_weakened_sandbox_says_so(root: Path) -> None:
    backend = dataclasses.replace(BACKEND, without=frozenset({"processes"}))
    async with running(root, backend=backend) as launched:
        assert launched.stamp["isolation"] == "weakened"
        assert await ask(launched, "fork", 50) == 50
