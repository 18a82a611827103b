"""A hostile worker against its host (attacks 54 to 62): typed errors, opaque bytes, and nothing that runs."""

from __future__ import annotations

import io
import pickle
import resource
import zipfile
from pathlib import Path

import pytest

from marple.errors import ToolError, WireError
from marple.sandboxes import Limits, StagedTarget, Worker, start_worker
from marple.sandboxes.backend import Program
from marple.tools.contract import ToolResult

SCRIPT = Path(__file__).with_name("hostile.py")
REFUSED = (
    "a future id", "a past id", "no id", "an id of another type", "an unasked hello", "a request", "a method",
    "a class as code", "a class beside", "a pickle as frame", "text for a list", "a list without end",
    "a number for the text", "an enormous cost", "tokens below zero", "a gigabyte announced", "another result",
    "a name with a path", "a name with a line", "a device as name",
)  # fmt: skip


class Trap:
    """A pickle of it makes a file where it is loaded."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self.canary,))


async def attacked(how: str, folder: Path, payload: bytes = b"") -> Worker:
    root = folder / "root"
    (root / "target").mkdir(parents=True)
    (root / "cache").mkdir()
    (root / "attack").write_text(how)
    (root / "payload").write_bytes(payload)
    program = Program("hostile worker", script=SCRIPT)
    limits = Limits(start_seconds=30, call_seconds=30)
    return await start_worker(StagedTarget(root, root / "target"), backend="process", limits=limits, program=program)


@pytest.mark.parametrize("how", REFUSED)
async def test_a_breach_of_the_protocol_ends_the_worker_and_is_named(how: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    async with await attacked(how, tmp_path, pickle.dumps(Trap(canary))) as worker:
        with pytest.raises(WireError):
            await worker.call("x", {}, seed=0)
        assert worker.ended is not None
        assert worker.ended.kind == "protocol"
    assert not canary.exists()


@pytest.mark.parametrize("how", ["a pickle as text", "a pickle in the data", "a pickle as artifact"])
async def test_a_pickle_is_text_or_bytes_and_is_never_loaded(how: str, tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    payload = pickle.dumps(Trap(canary))
    async with await attacked(how, tmp_path, payload) as worker:
        result = await worker.call("x", {}, seed=0)
    assert isinstance(result, ToolResult)
    assert not canary.exists()
    if how == "a pickle as artifact":
        assert result.artifacts[0].data == payload
        pickle.loads(result.artifacts[0].data)
        assert canary.exists(), "loaded, it would have worked"


async def test_a_class_in_an_error_is_text(tmp_path: Path) -> None:
    async with await attacked("a class as message", tmp_path) as worker:
        with pytest.raises(ToolError, match=r"^posix\.system: touch it$"):
            await worker.call("x", {}, seed=0)
        assert worker.ended is None


def bomb(megabytes: int) -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("zeros", bytes(megabytes * 2**20))
    return archive.getvalue()


HUGE = (2**31 - 1).to_bytes(4, "big")
PNG = bytes.fromhex("89504e470d0a1a0a0000000d49484452") + HUGE * 2 + b"\x08\x06" + bytes(100)


@pytest.mark.parametrize(
    ("how", "payload"), [("an archive", bomb(400)), ("a picture", PNG)], ids=["archive", "picture"]
)
async def test_a_bomb_stays_as_small_as_it_was_sent(how: str, payload: bytes, tmp_path: Path) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    async with await attacked(how, tmp_path, payload) as worker:
        (artifact,) = (await worker.call("x", {}, seed=0)).artifacts
    assert artifact.data == payload
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000, "KiB"
    if how == "an archive":
        assert zipfile.ZipFile(io.BytesIO(payload)).infolist()[0].file_size == 400 * 2**20, (
            "unpacked, it would be large"
        )
