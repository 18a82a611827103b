"""What the soak runs inside its sandboxes: a worker without torch that can also hang, end, and leave children behind.

A program of the host's (``Program.script``), given the staged directory's path.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from marple.tools import wire

TOOL = {"name": "do", "description": "", "rung": 1, "parallel": True, "needs": [], "parameters": {}}
HELLO = {"protocol": 3, "tools": [TOOL], "target": {}, "reference": False, "stamp": {}}
COST = {"prompt_tokens": 0, "generated_tokens": 0, "seconds": 0.0}
RESULT = {"text": "done", "data": {}, "controls": {}, "cost": COST, "handles": [], "artifacts": []}


def main() -> None:
    """Answer until the channel ends."""
    while request := wire.read_frame(sys.stdin.buffer):
        answer: dict[str, Any] = HELLO if request["op"] == "hello" else {}
        if request["op"] == "call":
            do(request["arguments"]["what"])
            answer = RESULT
        sys.stdout.buffer.write(wire.encode_frame({"id": request["id"], "ok": answer}))
        sys.stdout.buffer.flush()


def do(what: str) -> None:
    """One of the things that make an end difficult."""
    if what == "hang":
        time.sleep(600)
    if what == "leave":
        os._exit(7)
    for _ in range(3 if what in ("children", "sessions") else 0):
        if os.fork() == 0:
            # The child keeps the channel's descriptors.
            if what == "sessions":
                os.setsid()
            if os.fork() == 0:
                time.sleep(600)
            time.sleep(600)
    if what == "print":
        os.write(2, b"x" * 200_000)


main()
