"""The server of the review app: its address, its key where others could reach it, and its end."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from marple.errors import UsageError
from marple.traces.review.app import create_app

__all__ = ["Address", "Server"]

_LOCAL = ("127.0.0.1", "localhost", "::1")
_TRIES = 20


@dataclass(frozen=True)
class Address:
    """Where the app is served."""

    url: str
    """What to open; with the key where one is asked for."""
    port: int
    exposed: bool
    """Whether other machines can reach it."""


class Server:
    """Holds the port from the moment it is made; ``serve`` answers until it is interrupted."""

    def __init__(self, runs: Path, *, host: str = "127.0.0.1", port: int = 8077) -> None:
        """Take the port.

        Args:
            runs: a runs folder or an evaluation's output.
            host: address to listen on; anything but loopback needs a key, which is made.
            port: 0 for any that is free.

        Raises:
            UsageError: the folder does not exist, the port is taken (names a free one), or the host cannot be used.
        """
        if not runs.is_dir():
            raise UsageError(f"there is no folder {runs}; make a run with: marple demo --runs {runs}")
        exposed = not _is_local(host)
        key = secrets.token_urlsafe(18) if exposed else ""
        self._socket = _listen(host, port)
        taken = int(self._socket.getsockname()[1])
        name = socket.gethostname() if host in ("0.0.0.0", "::") else host
        shown = f"[{name}]" if ":" in name else name
        self.address = Address(f"http://{shown}:{taken}/" + (f"?key={key}" if key else ""), taken, exposed)
        self.app = create_app(runs, hosts=() if exposed else _LOCAL, key=key)
        self._server = uvicorn.Server(
            uvicorn.Config(
                self.app,
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=2,
                ws="none",
            )
        )

    def serve(self) -> None:
        """Answer requests until SIGINT or SIGTERM."""
        try:
            self._server.run(sockets=[self._socket])
        except KeyboardInterrupt:
            return  # asked for, and everything is closed by now
        finally:
            self._socket.close()

    def stop(self) -> None:
        """Ask ``serve`` to end, from another thread."""
        self.app.state.closing.set()
        self._server.should_exit = True


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _listen(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise UsageError(f"port {port} must be from 0 to 65535")
    try:
        return _bound(host, port)
    except OSError as error:
        free = _free_port(host, port)
        if free is None:
            raise UsageError(f"cannot listen on {host}: {error.strerror or error}; try --host 127.0.0.1") from error
        why = error.strerror or str(error)
        raise UsageError(f"cannot listen on {host} port {port}: {why}; port {free} is free: --port {free}") from error


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((host, port))
        made.listen(128)
    except OSError:
        made.close()
        raise
    return made


def _free_port(host: str, port: int) -> int | None:
    for other in (*range(port + 1, min(port + _TRIES, 65535)), 0):
        try:
            with _bound(host, other) as made:
                return int(made.getsockname()[1])
        except OSError:
            continue
    return None
