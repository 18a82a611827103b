"""Throw hostile frames at the host's parser and schemas: typed errors and bounded memory, or it fails.

    python benchmarks/fuzz_frames.py [--frames N] [--seed N] [--json FILE]

Most frames start from a valid one, so that they get past the first check; the rest are noise. Each stream is cut at
random places. What is accepted must be strict JSON that Python's own parser reads the same way.
"""

from __future__ import annotations

import argparse
import collections
import json
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from marple.errors import WireError
from marple.tools import messages, wire

ID = "0123456789abcdef" * 2
COST = {"prompt_tokens": 3, "generated_tokens": 4, "seconds": 0.25}
ARTIFACT = {"name": "plot.png", "media_type": "image/png", "base64": "iVBORw0KGgo="}
RESULT = {"text": "[{\"é\u2028\U0001f980", "data": {"values": [1, -2.5, None, True, "x"]}, "controls": {"shuffled": {}},
          "cost": COST, "handles": ["v1"], "artifacts": [ARTIFACT]}  # fmt: skip
TOOL = {"name": "x", "description": "", "rung": 1, "parallel": True, "needs": ["sae"], "parameters": {"type": "object"}}
DIGESTS = {"target": "0" * 64, "reference": None, "saes": {"resid_post.1": "1" * 64}}
VALID: tuple[dict[str, Any], ...] = (
    {"id": ID, "ok": RESULT},
    {"id": ID, "ok": {"protocol": messages.PROTOCOL, "tools": [TOOL], "target": {"layers": 2}, "reference": False,
                      "digests": DIGESTS, "stamp": {"python": "3.11"}}},
    {"id": ID, "ok": {"outcomes": [{"name": "x", "ok": False, "message": "no"}]}},
    {"id": ID, "ok": DIGESTS},
    {"id": ID, "error": {"code": "tool_error", "message": "no"}},
    {"id": ID, "progress": {"done": 1, "total": 2, "what": "prompts"}},
    {"id": ID, "op": "call", "tool": "x", "arguments": {"layer": 1}, "seed": 0},
    {"id": ID, "op": "hello", "config": {"target": "target", "saes": ["saes/sae_0"]}},
)  # fmt: skip
BODIES = tuple(wire.encode_body(value) for value in VALID)
# What a parser might trip over, put in the place of a value, a key or any byte.
MORSELS = (
    b"NaN", b"-Infinity", b"1e999", b"-0", b"-0.0", b"1E400", b"9" * 41, b"9" * 40, b"0." + b"1" * 60, b"01", b"+1",
    b'"\\ud800"', b'"\\uDFFF\\uD800"', b'"\\ud83d\\ude00"', b'"\xed\xa0\x80"', b'"\xff"', b'"\xc0\xaf"', b'"\x00"',
    b'"\\u0000"', b'"\\x"', b'"', b"\\", b"{", b"}", b"[", b"]", b":", b",", b"[" * 70 + b"]" * 70, b"[" * 3000,
    b'{"a":' * 70, b'{"a":1,"a":2}', b"null", b"true", b"[]", b"{}", b'""', b"\xef\xbb\xbf", b"\x00", b"/**/", b"'x'",
    b'{"__class__":"os.system"}', b'"cposix\\nsystem\\n"', b'"../../etc/passwd"', b'"\x1b[31m"', b'"\\u202e"',
    b'{"$ref":"#"}', b'{"dtype":"object","shape":[1]}', b"[-1]", b"2147483648", b"-9223372036854775809", b"1.0",
)  # fmt: skip
LENGTHS = (0, 1, 2, 3, 2**31 - 1, 2**31, 2**32 - 1, wire.MAX_FRAME_BYTES, wire.MAX_FRAME_BYTES + 1)


# ---------------------------------------------------------------------------------------------- making frames


def raw(body: bytes, length: int | None = None) -> bytes:
    """A body behind a length that may be a lie."""
    return (len(body) if length is None else length).to_bytes(4, "big") + body


def hostile(draw: random.Random) -> bytes:
    """One stream: a frame, several, a torn one, or noise."""
    kind = draw.random()
    if kind < 0.05:
        return draw.randbytes(draw.randrange(200))
    if kind < 0.10:
        return raw(draw.randbytes(draw.randrange(2, 200)))
    if kind < 0.15:
        return raw(mutated(draw), draw.choice(LENGTHS))
    if kind < 0.20:
        return b"".join(raw(draw.choice(BODIES)) for _ in range(draw.randrange(1, 4))) + raw(mutated(draw))[:-1]
    if kind < 0.2005:
        return raw(large(draw))
    return raw(mutated(draw))


def mutated(draw: random.Random) -> bytes:
    """A valid body with up to four changes."""
    body = bytearray(draw.choice(BODIES))
    for _ in range(draw.choice((0, 1, 1, 1, 2, 4))):
        draw.choice(CHANGES)(draw, body)
    return bytes(body)


def _flip(draw: random.Random, body: bytearray) -> None:
    if body:
        body[draw.randrange(len(body))] ^= 1 << draw.randrange(8)


def _insert(draw: random.Random, body: bytearray) -> None:
    at = draw.randrange(len(body) + 1)
    body[at:at] = draw.choice(MORSELS)


def _replace_value(draw: random.Random, body: bytearray) -> None:
    start = body.find(b":", draw.randrange(len(body) or 1)) + 1
    end = min((at for at in (body.find(b",", start), body.find(b"}", start)) if at > 0), default=len(body))
    body[start:end] = draw.choice(MORSELS)


def _cut(draw: random.Random, body: bytearray) -> None:
    start = draw.randrange(len(body) + 1)
    del body[start : start + draw.randrange(20)]


def _repeat(draw: random.Random, body: bytearray) -> None:
    start = draw.randrange(len(body) + 1)
    body[start:start] = body[start : start + draw.randrange(40)] * draw.randrange(1, 4)


def _graft(draw: random.Random, body: bytearray) -> None:
    other = draw.choice(BODIES)
    body[draw.randrange(len(body) + 1) :] = other[draw.randrange(len(other)) :]


CHANGES: tuple[Callable[[random.Random, bytearray], None], ...] = (
    _flip, _flip, _insert, _replace_value, _replace_value, _replace_value, _cut, _repeat, _graft,
)  # fmt: skip


def large(draw: random.Random) -> bytes:
    """A body of up to the size of a frame that blows up when it is read: empty lists, keys, base64, depth."""
    size = draw.randrange(100_000, wire.MAX_FRAME_BYTES - 1000)
    kind = draw.randrange(8)
    if kind == 0:
        artifact = {**ARTIFACT, "base64": "A" * (size // 4 * 4)}
        return json.dumps({"id": ID, "ok": {**RESULT, "artifacts": [artifact]}}).encode()
    if kind == 1:
        return b'{"id":"%s","ok":{%s}}' % (ID.encode(), b",".join(b'"%d":0' % key for key in range(size // 12)))
    if kind == 2:
        return draw.choice((b'{"a":' * (size // 5), b'{"a":"' + b"\\" * size))
    unit = draw.choice((b"[],", b"{},", b'{"a":0},', b"0,", b'"aa",', b'"",', b"1.5,", b"[[[[]]]],", b'"\\"[{",'))
    return b'{"id":"%s","ok":{"text":[%s0]}}' % (ID.encode(), unit * (size // len(unit)))


# ---------------------------------------------------------------------------------------------- judging


def judge(stream: bytes, cuts: list[int]) -> collections.Counter[str]:
    """Feed a stream in pieces to the host's parser and what it gives to every schema; counts what came of it.

    Raises:
        AssertionError: something was accepted that is not strict JSON, or the parser holds more than a frame.
        Exception: of any type but ``WireError``, which is what is looked for.
    """
    outcomes: collections.Counter[str] = collections.Counter()
    parser, rest = wire.FrameParser(), stream
    try:
        for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
            for value in parser.feed(stream[start:end]):
                length = int.from_bytes(rest[:4], "big")
                body, rest = rest[4 : 4 + length], rest[4 + length :]
                assert value == json.loads(body), "read otherwise than Python's own parser reads it"
                outcomes["frames accepted"] += 1
                outcomes.update(schemas(value))
            assert parser.pending <= wire.MAX_FRAME_BYTES + 4
    except WireError as error:
        outcomes[f"refused: {_reason(error)}"] += 1
    else:
        outcomes["torn"] += bool(parser.pending)
    return outcomes


def schemas(value: dict[str, Any]) -> list[str]:
    """Which messages an object is."""
    assert json.loads(wire.encode_body(value)) == value
    found = []
    try:
        reply = messages.validate(messages.Reply, value)
        found.append("valid: reply")
        for parse in (messages.result_from_json, _hello, _digests, _outcomes):
            try:
                parse(reply.ok)
            except WireError:
                continue
            found.append(f"valid: {parse.__name__.lstrip('_').removesuffix('_from_json')}")
    except WireError:
        found.append("no reply")
    try:
        messages.parse_request(value)
        found.append("valid: request")
    except WireError:
        pass
    return found


def _hello(value: Any) -> None:
    messages.validate(messages.HelloReply, value)


def _digests(value: Any) -> None:
    messages.validate(messages.Digests, value)


def _outcomes(value: Any) -> None:
    messages.validate(messages.SelfTestReply, value)


def _reason(error: WireError) -> str:
    text = str(error)
    return "announced length" if "announces" in text else text.partition(":")[0].removeprefix("a frame ")


# ---------------------------------------------------------------------------------------------- running


def resident() -> int:
    """Bytes of memory this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def run(frames: int, *, seed: int) -> dict[str, Any]:
    """Judge this many streams; the figures."""
    draw = random.Random(seed)
    outcomes: collections.Counter[str] = collections.Counter()
    before, began = resident(), time.perf_counter()
    for number in range(frames):
        stream = hostile(draw)
        cuts = sorted(draw.randrange(len(stream) + 1) for _ in range(draw.choice((0, 0, 1, 3))))
        try:
            outcomes.update(judge(stream, cuts))
        except Exception:
            print(
                f"stream {number} of seed {seed}, {len(stream)} bytes: {stream[:2000]!r}, cut at {cuts}",
                file=sys.stderr,
            )
            raise
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {
        "streams": frames,
        "seconds": round(time.perf_counter() - began, 1),
        "memory before, MiB": round(before / 2**20, 1),
        "memory after, MiB": round(resident() / 2**20, 1),
        "memory at most, MiB": round(peak / 2**20, 1),
        **dict(sorted(outcomes.items())),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    figures = run(options.frames, seed=options.seed)
    for name, value in figures.items():
        print(f"{name:50} {value}")
    if options.json:
        options.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
