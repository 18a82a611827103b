"""A worker that says hello properly and then breaks the protocol in the way named by its argument."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

from marple.tools import wire

TOOL = {"name": "x", "description": "", "rung": 1, "parallel": True, "needs": [], "parameters": {}}
HELLO = {"protocol": 3, "tools": [TOOL], "target": {}, "reference": False, "stamp": {}}
COST = {"prompt_tokens": 0, "generated_tokens": 0, "seconds": 0.0}
RESULT = {
    "text": "fine",
    "data": {},
    "controls": {},
    "cost": COST,
    "handles": [],
    "artifacts": [],
}
PROGRESS = {"done": 1, "total": 2, "what": "x"}


def raw(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


def reply(request: dict[str, Any], **fields: object) -> bytes:
    return raw(json.dumps({"id": request["id"], **fields}).encode())


def answer(how: str, request: dict[str, Any]) -> bytes:
    good = reply(request, ok=RESULT)
    cost = {**COST, "prompt_tokens": True}
    answers = {
        "oversized": b"\xff\xff\xff\xff" + b"x" * 100,
        "zero_length": b"\x00\x00\x00\x00",
        "not_json": raw(b"{nonsense}"),
        "not_utf8": raw(b'{"id": "\xff\xfe"}'),
        "nan": good.replace(b"0.0", b"NaN"),
        "duplicate_key": raw(b'{"id":"a","id":"b"}'),
        "deep": raw(b'{"ok":' + b"[" * 200_000 + b"]" * 200_000 + b"}"),
        "long_number": raw(b'{"ok":' + b"9" * 1_000_000 + b"}"),
        "unknown_id": reply({"id": "0" * 32}, ok=RESULT),
        "two_answers": good + good,
        "no_answer_in_it": reply(request),
        "both": reply(request, ok=RESULT, error={"code": "internal", "message": ""}),
        "progress_and_answer": reply(request, ok=RESULT, progress=PROGRESS),
        "progress_without_total": reply(request, progress={"done": 1, "what": "x"}),
        "progress_below_zero": reply(request, progress={**PROGRESS, "done": -1}),
        "progress_with_a_book": reply(request, progress={**PROGRESS, "what": "x" * 201}),
        "progress_in_colour": reply(request, progress={**PROGRESS, "what": "\x1b[31mx"}),
        "progress_of_nothing": reply({"id": "0" * 32}, progress=PROGRESS),
        "progress_after_answer": good + reply(request, progress=PROGRESS),
        "unknown_code": reply(request, error={"code": "os.system", "message": "x"}),
        "long_message": reply(request, error={"code": "internal", "message": "x" * 5000}),
        "extra_key": reply(request, ok=RESULT, also=1),
        "wrong_type": reply(request, ok={**RESULT, "cost": cost}),
        "not_a_result": reply(request, ok={"text": "x"}),
        "not_base64": reply(request, ok={**RESULT, "artifacts": [{"name": "a", "media_type": "a/b", "base64": "*"}]}),
        "path_as_name": reply(
            request, ok={**RESULT, "artifacts": [{"name": "../a", "media_type": "a/b", "base64": ""}]}
        ),
        "request_to_host": raw(b'{"id":"' + b"1" * 32 + b'","op":"call"}'),
    }
    return answers[how]


def main(how: str) -> None:
    requests, replies = sys.stdin.buffer, sys.stdout.buffer
    hello = wire.read_frame(requests) or {}
    replies.write(reply(hello, ok=HELLO))
    replies.flush()
    request = wire.read_frame(requests) or {}
    if how == "silent":
        time.sleep(600)
    if how == "slow_progress":
        while True:
            replies.write(reply(request, progress=PROGRESS))
            replies.flush()
            time.sleep(0.1)
    if how == "progress_flood":
        line = reply(request, progress=PROGRESS) * 100
        while True:
            replies.write(line)
            replies.flush()
    if how == "cancels_nothing":
        cancel = wire.read_frame(requests) or {}
        replies.write(reply(cancel, ok={"and": "more"}))
        replies.flush()
    if how == "torn":
        replies.write(b"\x00\x00\x10\x00{")
        replies.flush()
        os._exit(0)
    if how == "closes_channel":
        os.close(1)
        time.sleep(600)
    if how == "flood":
        line = b"y" * 65536
        for _ in range(1024):
            os.write(2, line)
        os.write(2, b"the end of it")
        replies.write(reply(request, ok=RESULT))
        replies.flush()
        time.sleep(600)
    if how == "leaves_child":
        # It keeps the worker's descriptors, so the end of the streams alone would never be seen.
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], close_fds=False)
        replies.write(reply(request, ok=RESULT))
        replies.flush()
        os._exit(5)
    replies.write(answer(how, request))
    replies.flush()
    time.sleep(600)


main(sys.argv[1])
