"""Serving a game over MCP's two transports: standard input and output, and streamable HTTP on this machine alone."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

from marple.agent.games.game import Game
from marple.agent.games.mcp_server import Table, build_server
from marple.errors import UsageError

__all__ = ["serve_http", "serve_stdio"]

LOOPBACK = "127.0.0.1"

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


async def serve_stdio(game: Game, path: Path | None, version: str) -> None:
    """Play over standard input and output until the input ends; the run stands interrupted unless it is over."""
    from mcp.server.stdio import stdio_server

    loop = asyncio.get_running_loop()

    async def end() -> None:
        await table.leave()
        os._exit(130)  # a thread that waits for standard input would keep the process

    def take_signals() -> None:
        for number in _SIGNALS:
            loop.add_signal_handler(number, lambda: asyncio.ensure_future(end()))

    table = Table(game, path, begun=take_signals)
    server = build_server(table, version)
    async with stdio_server() as (reading, writing):
        # Only now, so that no process started by the game holds the client's pipes.
        table.begin()
        try:
            await server.run(reading, writing, server.create_initialization_options())
        finally:
            await table.leave()


async def serve_http(game: Game, path: Path | None, version: str, *, port: int, say: Callable[[str], None]) -> None:
    """Play over streamable HTTP until SIGINT or SIGTERM; nobody but programs of this machine can connect.

    Requests with the ``Host`` or ``Origin`` of another machine are refused, so that no web page reaches the game.

    Args:
        game: not yet begun.
        path: the folder of the run that is gone on with, or None.
        version: Marple's.
        port: 0 takes a free one.
        say: told the address.

    Raises:
        UsageError: the port is taken.
    """
    import uvicorn

    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((LOOPBACK, port))
        listening.listen()
    except (OSError, OverflowError) as error:
        listening.close()
        raise UsageError(f"port {port} cannot be listened on ({error}); choose another with --port, or 0") from error
    loop = asyncio.get_running_loop()

    def take_signals() -> None:
        for number in _SIGNALS:
            loop.add_signal_handler(number, web.handle_exit, number, None)

    table = Table(game, path, begun=take_signals)
    app = build_server(table, version).streamable_http_app(host=LOOPBACK)
    web = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=3))
    table.begin()
    say(f"http://{LOOPBACK}:{listening.getsockname()[1]}/mcp")
    try:
        await web.serve(sockets=[listening])
    finally:
        listening.close()
        await table.leave()
