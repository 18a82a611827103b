"""The channel to a container: one socket to the daemon, on which Docker interleaves what the container prints.

Without a terminal, every piece of output comes behind eight bytes: which stream (1 standard output, 2 standard error),
three zeros, and the length, big-endian (Docker Engine API, "Attach to a container"). Input goes the other way as it is.
Nothing is gathered here: pieces go to their stream as they come, and when one of them is not read, nothing more is
taken from the daemon, which in turn takes nothing more from the container.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from pathlib import Path

from marple.errors import SandboxError, WireError

__all__ = ["DockerPipe"]

_HEADER = 8
_SECONDS = 30.0
_MOST_ANSWER = 16 * 1024
_STREAM_BYTES = 128 * 1024
_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2


class DockerPipe(asyncio.Protocol):
    """Both directions of an attached container; at most about half a MiB of each stream is held."""

    def __init__(self, ended: Callable[[], None]) -> None:
        """Args:
        ended: called once, when the daemon has closed the socket or it was closed here.
        """
        self.replies = asyncio.StreamReader(_STREAM_BYTES)
        self.diagnostics = asyncio.StreamReader(_STREAM_BYTES)
        self._valves = {reader: _Valve(self._regulate) for reader in (self.replies, self.diagnostics)}
        for reader, valve in self._valves.items():
            reader.set_transport(valve)
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self._header = bytearray()
        self._into = self.replies
        self._missing = 0

    @classmethod
    async def attach(cls, daemon: Path, path: str, ended: Callable[[], None]) -> DockerPipe:
        """Ask the daemon for a container's streams; before the container is started, so that nothing is lost.

        Args:
            daemon: the daemon's socket.
            path: of the request, ``/v1.41/containers/<id>/attach``.
            ended: as for the constructor.

        Raises:
            SandboxError: the daemon refuses.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.setblocking(False)
        try:
            await asyncio.wait_for(_upgrade(connection, daemon, path), _SECONDS)
            loop = asyncio.get_running_loop()
            _, pipe = await loop.create_unix_connection(lambda: cls(ended), sock=connection)
        except (OSError, TimeoutError) as error:
            connection.close()
            raise SandboxError(f"Docker: attaching to the container failed: {error!r}") from error
        except BaseException:
            connection.close()
            raise
        return pipe

    def send(self, data: bytes) -> None:
        """Queue bytes for the container's standard input; lost without a word when it has ended."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def close(self) -> None:
        """Let go of the socket, which ends the container's standard input; harmless when repeated."""
        # Also where it is closing already: it would wait for what nobody will read.
        if self._transport is not None:
            self._transport.abort()

    def finish(self) -> None:
        """Tell the readers that nothing more will come; harmless when repeated."""
        for reader in self._valves:
            if reader.exception() is None:
                reader.feed_eof()

    # ------------------------------------------------------------------------------------ asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Hand each piece to the stream that it belongs to."""
        rest = memoryview(data)
        while rest:
            if self._missing == 0:
                rest = self._take_header(rest)
                if self._transport is None or self._transport.is_closing():
                    return
                continue
            piece, rest = rest[: self._missing], rest[self._missing :]
            self._missing -= len(piece)
            self._into.feed_data(bytes(piece))

    def eof_received(self) -> None:
        """The container has ended: nothing that is still queued for it will be read."""
        self.close()

    def connection_lost(self, exc: Exception | None) -> None:
        """Report the end; the readers are told by ``finish``."""
        self._ended()

    # ------------------------------------------------------------------------------------ parts

    def _take_header(self, rest: memoryview) -> memoryview:
        wanted = _HEADER - len(self._header)
        self._header += rest[:wanted]
        if len(self._header) == _HEADER:
            streams = {_STANDARD_OUTPUT: self.replies, _STANDARD_ERROR: self.diagnostics}
            into = streams.get(self._header[0])
            if into is None or any(self._header[1:4]):
                self._break(f"Docker's stream has the header {self._header.hex()}")
            else:
                self._into, self._missing = into, int.from_bytes(self._header[4:], "big")
            self._header.clear()
        return rest[wanted:]

    def _break(self, problem: str) -> None:
        for reader in self._valves:
            reader.set_exception(WireError(problem))
        self.close()

    def _regulate(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        if any(valve.shut for valve in self._valves.values()):
            self._transport.pause_reading()
        else:
            self._transport.resume_reading()


async def _upgrade(connection: socket.socket, daemon: Path, path: str) -> None:
    """Have a connection switched from HTTP to the bare streams.

    By hand, because the SDK keeps a second reference to the socket that it hands out: closing ours would not end the
    container's standard input.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, str(daemon))
    request = f"POST {path}?stream=1&stdin=1&stdout=1&stderr=1 HTTP/1.1"
    headers = ("Host: docker", "Connection: Upgrade", "Upgrade: tcp", "Content-Length: 0")
    await loop.sock_sendall(connection, "\r\n".join((request, *headers, "", "")).encode("ascii"))
    answer = bytearray()
    while not answer.endswith(b"\r\n\r\n") and len(answer) < _MOST_ANSWER:
        # One byte at a time: what comes after the headers belongs to the container's streams.
        byte = await loop.sock_recv(connection, 1)
        if not byte:
            break
        answer += byte
    first = answer.partition(b"\r\n")[0].decode("latin-1")
    if first.split()[1:2] not in (["101"], ["200"]):
        raise SandboxError(f"Docker: attaching to the container failed: {first or 'no answer'}")


class _Valve(asyncio.ReadTransport):
    """What a ``StreamReader`` asks to stop and go on, for one stream of the two."""

    def __init__(self, changed: Callable[[], None]) -> None:
        super().__init__()
        self.shut = False
        self._changed = changed

    def pause_reading(self) -> None:
        self.shut = True
        self._changed()

    def resume_reading(self) -> None:
        self.shut = False
        self._changed()
