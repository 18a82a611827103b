"""Serves attacks inside a sandbox: reads what to try from descriptor 0, tries it in a child, answers on descriptor 1.

An attack may thus crash, change its credentials or its namespaces, and the next one starts clean. A child that is to be
held stays as it is after its answer, until it is released, so that the host can look at it from outside.
"""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

from marple.tools import wire

_PR_SET_NAME = 15


def main(root: str) -> None:
    """Serve until the channel ends."""
    sys.path.insert(0, root)
    for name in ("kernel", "network", "reading", "processes", "privilege", "resources", "state", "code"):
        importlib.import_module(f"attacks.{name}")
    requests, replies = os.fdopen(0, "rb"), os.fdopen(1, "wb")
    held: list[tuple[int, int]] = []
    while (request := wire.read_frame(requests)) is not None:
        # The host finds every process of this sandbox by this name, whatever namespace it is in. Not before it asks:
        # it waits for the name that a confined process has.
        ctypes.CDLL(None).prctl(_PR_SET_NAME, (Path(root) / "token").read_bytes(), 0, 0, 0)
        answer = _release(held) if request["function"] == "release" else _attempt(request, held)
        replies.write(wire.encode_frame({"id": request["id"], **answer}))
        replies.flush()


def _attempt(request: dict[str, Any], held: list[tuple[int, int]]) -> dict[str, Any]:
    module, name = request["function"].split(".")
    function = getattr(sys.modules[f"attacks.{module}"], name)
    if request["here"]:
        return {"value": function(**request["arguments"])}
    reading, writing = os.pipe()
    waiting, releasing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(releasing)
        _answer(writing, function, request["arguments"])
        if request["hold"]:
            os.read(waiting, 1)
        os._exit(0)
    os.close(writing)
    os.close(waiting)
    with os.fdopen(reading, "rb") as answers:
        answer = _read(answers)
    if request["hold"]:
        held.append((child, releasing))
        return answer
    os.close(releasing)
    _, status = os.waitpid(child, 0)
    return answer or {"died": os.waitstatus_to_exitcode(status)}


def _answer(writing: int, function: Any, arguments: dict[str, Any]) -> None:
    try:
        value = function(**arguments)
    except BaseException as error:
        value = {"failed": f"{type(error).__name__}: {error}"}
    body = json.dumps({"value": value}).encode("utf-8", "replace")
    with os.fdopen(writing, "wb") as stream:
        stream.write(len(body).to_bytes(4, "big") + body)


def _read(answers: BinaryIO) -> dict[str, Any]:
    # By length: what an attack left running holds the pipe open.
    length = int.from_bytes(answers.read(4), "big")
    body = answers.read(length) if length else b""
    return json.loads(body) if body and len(body) == length else {}


def _release(held: list[tuple[int, int]]) -> dict[str, Any]:
    for child, releasing in held:
        os.close(releasing)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    held.clear()
    return {"value": None}


if __name__ == "__main__":
    main(sys.argv[1])
