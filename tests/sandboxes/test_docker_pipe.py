"""The channel to a container: pieces, floods, broken headers, and sockets that go away."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marple.errors import SandboxError, WireError
from marple.sandboxes.docker.pipe import DockerPipe

UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n"
PIECES = st.lists(st.tuples(st.sampled_from([1, 2]), st.binary(max_size=300)), max_size=20)


def framed(stream: int, data: bytes) -> bytes:
    return bytes([stream, 0, 0, 0]) + len(data).to_bytes(4, "big") + data


@asynccontextmanager
async def attached(folder: Path, answer: bytes = UPGRADED) -> AsyncIterator[tuple[DockerPipe, socket.socket]]:
    """A pipe, and the other end of its socket."""
    path = folder / "daemon"
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        ends: list[socket.socket] = []

        def accept() -> None:
            end, _ = listener.accept()
            ends.append(end)
            asked = b""
            while not asked.endswith(b"\r\n\r\n"):
                asked += end.recv(4096)
            assert asked.startswith(b"POST /v1.41/containers/x/attach?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1\r\n")
            end.sendall(answer)
            if answer != UPGRADED:
                end.close()

        thread = threading.Thread(target=accept)
        thread.start()
        pipe: DockerPipe | None = None

        def ended() -> None:
            if pipe is not None:
                pipe.finish()

        try:
            pipe = await DockerPipe.attach(path, "/v1.41/containers/x/attach", ended)
            yield pipe, ends[0]
        finally:
            thread.join()
            if pipe is not None:
                pipe.close()
            await asyncio.sleep(0)
            for end in ends:
                end.close()


@given(pieces=PIECES, cuts=st.lists(st.integers(1, 40), min_size=1))
@settings(max_examples=60, deadline=None)
def test_pieces_reach_their_stream_however_they_are_cut(pieces: list[tuple[int, bytes]], cuts: list[int]) -> None:
    async def run() -> None:
        pipe = DockerPipe(lambda: None)
        pipe._transport = Open()
        stream = b"".join(framed(*piece) for piece in pieces)
        place = 0
        while place < len(stream):
            size = cuts[place % len(cuts)]
            pipe.data_received(stream[place : place + size])
            place += size
        pipe.finish()
        assert await pipe.replies.read() == b"".join(data for number, data in pieces if number == 1)
        assert await pipe.diagnostics.read() == b"".join(data for number, data in pieces if number == 2)

    asyncio.run(run())


class Open(asyncio.Transport):
    """A transport that is never read from."""

    closed = False

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def abort(self) -> None:
        self.closed = True


@pytest.mark.parametrize(
    "header", [b"\x00\0\0\0\0\0\0\x01x", b"\x03\0\0\0\0\0\0\x01x", b"HTTP/1.1", b"\x01\x01\0\0\0\0\0\x01x"]
)
async def test_a_header_that_is_not_dockers_breaks_the_channel(header: bytes, tmp_path: Path) -> None:
    async with attached(tmp_path) as (pipe, end):
        end.sendall(framed(1, b"good") + header + framed(1, b"never"))
        assert await pipe.replies.readexactly(4) == b"good"
        with pytest.raises(WireError, match="header"):
            await pipe.replies.read()
        with pytest.raises(WireError, match="header"):
            await pipe.diagnostics.read()


async def test_an_announced_length_is_not_believed_before_the_bytes_come(tmp_path: Path) -> None:
    async with attached(tmp_path) as (pipe, end):
        end.sendall(b"\x01\0\0\0\xff\xff\xff\xff" + b"abc")
        assert await pipe.replies.readexactly(3) == b"abc"
        assert held(pipe) == 0


@pytest.mark.parametrize("stream", [1, 2])
async def test_what_is_not_read_is_not_taken_from_the_daemon(stream: int, tmp_path: Path) -> None:
    async with attached(tmp_path) as (pipe, end):
        end.setblocking(False)
        flood = framed(stream, bytes(60_000))
        sent = 0
        for _ in range(400):
            try:
                sent += end.send(flood[sent % len(flood) :])
            except BlockingIOError:
                await asyncio.sleep(0.002)
        assert 0 < held(pipe) < 1024 * 1024
        assert sent < 4 * 1024 * 1024
        # It goes on where it is read again.
        reader = pipe.replies if stream == 1 else pipe.diagnostics
        taken = 0
        while taken < 4 * 1024 * 1024:
            taken += len(await asyncio.wait_for(reader.read(65536), 10))
            try:
                sent += end.send(flood[sent % len(flood) :])
            except BlockingIOError:
                await asyncio.sleep(0)


def held(pipe: DockerPipe) -> int:
    """Bytes in the two readers."""
    return sum(len(reader._buffer) for reader in (pipe.replies, pipe.diagnostics))  # type: ignore[attr-defined,misc]


async def test_both_streams_end_with_the_socket(tmp_path: Path) -> None:
    async with attached(tmp_path) as (pipe, end):
        end.sendall(framed(1, b"last words"))
        end.close()
        assert await pipe.replies.read() == b"last words"
        assert await pipe.diagnostics.read() == b""
        pipe.send(b"to nobody")
        pipe.close()
        pipe.close()


async def test_it_ends_although_something_is_still_to_be_sent(tmp_path: Path) -> None:
    async with attached(tmp_path) as (pipe, end):
        pipe.send(bytes(32 * 1024 * 1024))
        await asyncio.sleep(0.01)
        end.shutdown(socket.SHUT_WR)
        assert await asyncio.wait_for(pipe.replies.read(), 10) == b""


async def test_closing_ends_the_containers_input(tmp_path: Path) -> None:
    async with attached(tmp_path) as (pipe, end):
        pipe.send(b"request")
        await asyncio.sleep(0.01)
        assert end.recv(100) == b"request"
        pipe.close()
        await asyncio.sleep(0.01)
        assert end.recv(100) == b""


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 404 Not Found\r\n\r\n", b"", b"HTTP/1.1 500\r\n\r\n", b"x" * 40_000],
    ids=["404", "nothing", "500", "endless"],
)
async def test_a_refused_attachment_is_an_error(answer: bytes, tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="attaching to the container failed"):
        async with attached(tmp_path, answer):
            raise AssertionError("it was attached")


async def test_no_daemon_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SandboxError, match="attaching"):
        await DockerPipe.attach(tmp_path / "none", "/x", lambda: None)
