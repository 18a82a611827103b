"""The process that plays one run for a player who has only a shell.

``marple.agent.games.client`` starts it. It reads on standard input what to play (JSON), says on standard output how
the start went (JSON lines) and then answers on a unix socket: one JSON line asked, one answered, per connection. It
ends with the run, when it is told to stop, or when nothing has come for a while.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct
import sys
import time
import traceback
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from marple.agent.configuration import RunConfig
from marple.agent.games import place, told
from marple.agent.games.game import Game, for_outside
from marple.agent.games.seat import Seat
from marple.agent.models import ToolCall
from marple.errors import MarpleError, ToolError, UsageError

__all__ = ["main"]

IDLE_SECONDS = 1800.0
"""Without a request for so long, the process ends and the run stands interrupted."""


def main() -> None:
    """Read what to play, and serve."""
    order = json.loads(sys.stdin.buffer.readline())
    try:
        asyncio.run(_Daemon(order).run())
    finally:
        place.forget(None, Path(order["socket"]))


class _Daemon:
    def __init__(self, order: Mapping[str, Any]) -> None:
        self._order = order
        self._socket = Path(order["socket"])
        self._idle = float(order.get("idle") or IDLE_SECONDS)
        self._answering = 0
        self._last = time.monotonic()
        self._ended = asyncio.Event()

    async def run(self) -> None:
        try:
            self._game, path = self._set_up()
            await self._game.begin(path)
        except (MarpleError, OSError) as error:
            usage = isinstance(error, UsageError)
            _say({"error": str(error), "kind": "usage" if usage else type(error).__name__})
            return
        folder = self._game.folder
        assert folder is not None
        try:
            server = await asyncio.start_unix_server(self._answer, self._socket, limit=place.LONGEST_REQUEST + 1)
            self._socket.chmod(0o600)
            place.leave_address(folder.path, self._socket)
            for number in (signal.SIGTERM, signal.SIGINT):
                asyncio.get_running_loop().add_signal_handler(number, self._ended.set)
            self._last = time.monotonic()
            _say({"ready": str(folder.path.resolve())})
            _let_go_of_output()
            async with server:
                await self._until_ended()
        finally:
            place.forget(folder.path, self._socket)
            await self._game.stop()

    def _set_up(self) -> tuple[Game, Path | None]:
        order = self._order
        if "run" in order:
            path = Path(order["run"])
            game = Game.again(path, Seat("shell"))
            game.seat.model_name = game.config.model
            place.forget(path, place.read_address(path))
            return game, path
        asked = dict(order["config"])
        typed, player = asked.pop("budget"), asked.pop("player")
        asked |= {"runs": Path(asked["runs"])}
        config = for_outside(RunConfig.of(investigator="shell", budget=typed, **asked), typed)
        return Game(config, Seat("shell", player), building=lambda stage: _say({"building": stage})), None

    async def _until_ended(self) -> None:
        """Wait for the end of the run, a word to stop, or a long silence; then let answers under way go out."""
        while not self._ended.is_set():
            if self._answering == 0 and self._game.phase in ("over", "interrupted"):
                return
            if self._answering == 0 and time.monotonic() - self._last > self._idle:
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), 0.2)
        deadline = time.monotonic() + 5
        while self._answering and time.monotonic() < deadline:
            await asyncio.sleep(0.05)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request; it is carried out even if whoever asked does not wait for the answer."""
        self._answering += 1
        try:
            line = await reader.readline() if _peer(writer) == os.getuid() else b""
            if line:
                answer = await self._answer_to(line)
                writer.write(json.dumps(answer).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError):
            pass  # whoever asked is gone, or sent more than a request may hold
        finally:
            self._last = time.monotonic()
            self._answering -= 1
            with suppress(ConnectionError):
                writer.close()

    async def _answer_to(self, line: bytes) -> dict[str, Any]:
        try:
            return await self._carried_out(json.loads(line))
        except Exception as error:  # one request that goes wrong does not end the game
            traceback.print_exc()
            return {"error": f"{type(error).__name__}: {error}", "kind": "failed"}

    async def _carried_out(self, request: Mapping[str, Any]) -> dict[str, Any]:
        what = request["ask"]
        try:
            if what == "call":
                call = ToolCall.of(request["tool"], request["arguments"], id=request["id"])
                await self._game.move([call], why=str(request.get("why") or ""))
                return told.reply(self._game)
            if what == "tools":
                return {**told.status(self._game), "tools": told.tools_of(self._game)}
            if what == "status":
                return {**told.reply(self._game), "notebook": self._notebook()}
        except ToolError as error:
            return {"error": str(error), "kind": "refused"}
        except MarpleError as error:
            return {"error": str(error), "kind": "usage" if isinstance(error, UsageError) else type(error).__name__}
        if what == "stop":
            self._ended.set()
            await self._game.stop()
            return told.status(self._game)
        raise ValueError(what)

    def _notebook(self) -> dict[str, Any]:
        assert self._game.folder is not None
        return told.notebook_of(self._game.folder.events())


def _peer(writer: asyncio.StreamWriter) -> int:
    """The user at the other end of the connection."""
    connection = writer.get_extra_info("socket")
    if not hasattr(socket, "SO_PEERCRED"):
        return os.getuid()  # the folder is private
    packed = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", packed)[1])


def _say(what: Mapping[str, Any]) -> None:
    with suppress(OSError):
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def _let_go_of_output() -> None:
    """Whoever started this process waits for the end of its output."""
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
        os.dup2(nothing, descriptor)
    os.close(nothing)
