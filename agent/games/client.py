"""How a command of the shell reaches the process that plays its run; it is started, or started again, when needed.

Only the standard library and the traces are imported here, so that a command answers at once.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from marple.agent.games import place
from marple.agent.games.pausing import telling_of_pauses
from marple.errors import MarpleError, ToolError, UsageError
from marple.traces import RunFolder
from marple.traces.control import Request

__all__ = ["IDLE_VARIABLE", "SHELL", "ask", "ending", "start", "stop"]

SHELL = "shell"
"""The investigator's name in runs that are played from here."""

IDLE_VARIABLE = "MARPLE_PLAY_IDLE"
"""Environment variable with the seconds without a command after which the process of a run ends."""

Say = Callable[[str], None]

_DAEMON = "import os; os.fork() and os._exit(0); from marple.agent.games.daemon import main; main()"
"""Forks first, while there is nothing to fork but an interpreter: the process belongs to no command."""


def start(config: Mapping[str, Any], *, say: Say) -> Path:
    """Start a new run and the process that plays it; returns the run's folder.

    Args:
        config: arguments of ``RunConfig.of`` as JSON values, and ``player``.
        say: told what is being built meanwhile.

    Raises:
        MarpleError: it cannot be started; what kind is known by ``UsageError`` alone.
    """
    return _spawn({"config": dict(config)}, say)


def ask(
    run: Path, what: str, *, say: Say, on_pause: Callable[[Request], None] | None = None, **request: Any
) -> dict[str, Any]:
    """Ask the process that plays a run, which goes on with the run first when there is none.

    A request whose answer was lost with the process is asked once more; a call has an id and is not made twice.

    Args:
        run: the run's folder.
        what: ``call``, ``status``, ``tools`` or ``stop``.
        say: told when the process has to be started again.
        on_pause: told, in another thread, when the answer may take as long as somebody wants the run to be paused.
        request: what goes with it.

    Raises:
        UsageError: the run is over, or played by somebody else.
        ToolError: the call cannot be taken; the message says what can.
        MarpleError: the process could not be started or has ended twice.
    """
    message = {"ask": what, "id": secrets.token_hex(8), **request}
    if (size := len(json.dumps(message)) + 1) > place.LONGEST_REQUEST:
        raise UsageError(f"the arguments have {size:,} bytes; a call may have {place.LONGEST_REQUEST:,}")
    waiting = contextlib.nullcontext() if on_pause is None else telling_of_pauses(run, on_pause)
    with waiting:
        return _answer(run, message, say)


def _answer(run: Path, message: Mapping[str, Any], say: Say) -> dict[str, Any]:
    for attempt in (1, 2):
        try:
            return _unpacked(_exchange(_address(run, say), message))
        except (ConnectionError, EOFError) as error:
            if attempt == 2 or RunFolder.open(run).result is not None:
                raise MarpleError(
                    f"the process that plays {run} ended before it answered ({error or 'no word'}); "
                    f"`marple play status {run}` goes on with the run"
                ) from error
    raise AssertionError


def ending(run: Path) -> dict[str, Any] | None:
    """The status of a run that is over, its result included; None while it is not."""
    folder = RunFolder.open(run)
    result = folder.result
    if result is None:
        return None
    said = {
        "run_id": folder.run_id,
        "run_dir": str(run.resolve()),
        "case": result["case"],
        "phase": "over",
        "paused": False,
    }
    return {**said, "budget": {}, "under_way": [], "offered": [], "questions": 0, "result": result}


def stop(run: Path) -> bool:
    """End the process that plays a run; returns False where there is none."""
    address = place.read_address(run)
    if address is None:
        return False
    try:
        _unpacked(_exchange(address, {"ask": "stop"}))
    except (ConnectionError, EOFError):
        place.forget(run, address)
        return False
    return True


def _address(run: Path, say: Say) -> Path:
    """The socket of the living process, which is started when there is none."""
    found = place.read_address(run)
    if found is not None and _listens(found):
        return found
    with place.starting(run):
        found = place.read_address(run)  # somebody else may have started it meanwhile
        if found is None or not _listens(found):
            say("nobody plays this run just now; going on with it")
            _spawn({"run": str(run.resolve())}, say)
            found = place.read_address(run)
    if found is None:
        raise ConnectionResetError("the run ended while it was started again")
    return found


def _listens(address: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(address))
        except OSError:
            return False
    return True


def _exchange(address: Path, message: Mapping[str, Any]) -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(address))
        except FileNotFoundError as error:
            raise ConnectionResetError("its socket is gone") from error
        connection.sendall(json.dumps(message).encode() + b"\n")
        with connection.makefile("rb") as answers:
            line = answers.readline()
    if not line.endswith(b"\n"):
        raise EOFError("the connection was closed")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _unpacked(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer, unless it is an error."""
    if "error" not in answer:
        return answer
    kinds = {"usage": UsageError, "refused": ToolError}
    raise kinds.get(answer["kind"], MarpleError)(answer["error"])


def _spawn(order: Mapping[str, Any], say: Say) -> Path:
    """Start the process and wait until its player is asked something, or it has failed."""
    address = place.new_socket()
    full = {**order, "socket": str(address), "idle": _idle()}
    with place.log_of(address).open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", _DAEMON],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
    with process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(full).encode() + b"\n")
        process.stdin.close()
        for line in process.stdout:
            said = json.loads(line)
            if "building" in said:
                say(f"building the target: {said['building']}")
            elif "ready" in said:
                return Path(said["ready"])
            else:
                place.forget(None, address)
                _unpacked(said)
    raise MarpleError(f"the process that plays the run ended at its start: {_last_words(address)}")


def _idle() -> float | None:
    typed = os.environ.get(IDLE_VARIABLE)
    try:
        seconds = float(typed) if typed else None
    except ValueError:
        seconds = -1.0
    if seconds is not None and not 0 < seconds < float("inf"):
        raise UsageError(f"{IDLE_VARIABLE}={typed!r} is not a number of seconds above 0, such as 1800")
    return seconds


def _last_words(address: Path) -> str:
    log = place.log_of(address)
    try:
        lines = log.read_text(errors="replace").strip().splitlines()
    except OSError:
        lines = []
    place.forget(None, address)
    return lines[-1] if lines else "it said nothing"
