"""The protocol between host and worker: what is sent arrives, and nothing else gets through."""

from __future__ import annotations

import contextlib
import io
import json
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marple.errors import WireError
from marple.tools import messages, wire
from marple.tools.contract import Artifact, Cost, ToolResult

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
json_objects = st.dictionaries(st.text(), json_values, max_size=4)


def raw(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body


@given(st.lists(json_objects, max_size=5), st.data())
def test_frames_arrive_whole_however_the_stream_is_cut(objects: list[dict], data: st.DataObject) -> None:
    stream = b"".join(map(wire.encode_frame, objects))
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=8).map(sorted))
    parser, received = wire.FrameParser(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        received += parser.feed(stream[start:end])
    assert received == objects
    assert parser.pending == 0


@given(st.lists(json_objects, max_size=3))
def test_the_blocking_reader_gives_the_same_frames(objects: list[dict]) -> None:
    stream = io.BytesIO(b"".join(map(wire.encode_frame, objects)))
    assert list(iter(lambda: wire.read_frame(stream), None)) == objects


@given(st.binary(max_size=200), st.booleans())
def test_garbage_raises_wire_error_and_nothing_else(garbage: bytes, framed: bool) -> None:
    stream = raw(garbage) if framed else garbage
    for read in (lambda: wire.FrameParser().feed(stream), lambda: wire.read_frame(io.BytesIO(stream))):
        with contextlib.suppress(WireError):
            read()


json_like = st.text(alphabet='{}[]":,\\ud8e0-+.19NaInfityrl x\n', max_size=60)


@given(json_like)
@settings(max_examples=300)
def test_what_is_accepted_is_json_that_can_be_sent_back(text: str) -> None:
    try:
        value = wire.decode_body(text.encode())
    except WireError:
        return
    assert wire.decode_body(wire.encode_body(value)) == value == json.loads(text)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"[1]", "not a JSON object"),
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "Infinity"),
        (b'{"a": 1e999}', "not finite"),
        (b'{"a": ' + b"9" * 41 + b"}", "number longer"),
        (b'{"a": 1.' + b"0" * 41 + b"}", "too long"),
        (b'{"a": 1, "a": 1}', "duplicate key"),
        (b'{"a": {"b": 1, "b": 2}}', "duplicate key"),
        (b'{"a": "\\ud800"}', "lone surrogate"),
        (b'{"\\uDC00": 1}', "lone surrogate"),
        (b'{"a": "\xed\xa0\x80"}', "not UTF-8"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b'{"a": 1} {}', "not JSON"),
        (b"\xef\xbb\xbf{}", "not JSON"),
        (b'{"a":' * 65 + b"1" + b"}" * 65, "nested deeper"),
        (b'{"a":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested deeper"),
    ],
)
def test_a_body_that_is_not_strict_json_is_refused(body: bytes, reason: str) -> None:
    with pytest.raises(WireError, match=reason):
        wire.FrameParser().feed(raw(body))


def test_brackets_inside_strings_are_not_nesting() -> None:
    value = {"text": '[{"' * 1000, "list": [[]] * 500}
    assert wire.decode_body(wire.encode_body(value)) == value


def test_the_deepest_allowed_nesting_passes() -> None:
    body = b'{"a":' * 64 + b"1" + b"}" * 64
    assert wire.decode_body(body)


@pytest.mark.parametrize("length", [2**32 - 1, wire.MAX_FRAME_BYTES + 1, 0, 1])
def test_an_impossible_length_is_refused_before_anything_is_allocated(length: int) -> None:
    header = length.to_bytes(4, "big")
    tracemalloc.start()
    with pytest.raises(WireError, match="announces"):
        wire.FrameParser().feed(header)
    with pytest.raises(WireError, match="announces"):
        wire.read_frame(io.BytesIO(header))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000


def test_the_parser_never_holds_more_than_one_frame() -> None:
    parser = wire.FrameParser()
    body = wire.encode_frame({"text": "x" * 1_000_000})
    for _ in range(30):
        for start in range(0, len(body), 65536):
            parser.feed(body[start : start + 65536])
            assert parser.pending <= wire.MAX_FRAME_BYTES + 4
    assert parser.pending == 0


def test_a_broken_parser_stays_broken() -> None:
    parser = wire.FrameParser()
    with pytest.raises(WireError):
        parser.feed(raw(b"[]"))
    with pytest.raises(WireError):
        parser.feed(wire.encode_frame({}))


@pytest.mark.parametrize("cut", [1, 3, 4, 9])
def test_a_torn_frame_is_seen(cut: int) -> None:
    torn = wire.encode_frame({"key": "value"})[:cut]
    parser = wire.FrameParser()
    assert parser.feed(torn) == []
    assert parser.pending == cut
    with pytest.raises(WireError, match="ended inside"):
        wire.read_frame(io.BytesIO(torn))


@pytest.mark.parametrize(
    "value",
    [
        {"a": float("nan")},
        {"a": float("inf")},
        {"a": "\ud800"},
        {"a": object()},
        {"a": 10**50},
        {1: "a", "1": "b"},
        {"a": "x" * wire.MAX_FRAME_BYTES},
    ],
    ids=["nan", "inf", "surrogate", "object", "long integer", "keys that collide", "too large"],
)
def test_nothing_is_sent_that_would_be_refused(value: dict) -> None:
    with pytest.raises(WireError):
        wire.encode_frame(value)


names = st.from_regex(r"\A[A-Za-z0-9][A-Za-z0-9._ -]{0,30}\Z")
results = st.builds(
    ToolResult,
    text=st.text(),
    data=json_objects,
    controls=json_objects,
    cost=st.builds(Cost, st.integers(0, 10**9), st.integers(0, 10**9), st.floats(0, 1e6)),
    handles=st.lists(st.text(), max_size=3).map(tuple),
    artifacts=st.lists(st.builds(Artifact, names, st.just("image/png"), st.binary()), max_size=2).map(tuple),
)


@given(results)
def test_a_result_arrives_as_it_was(result: ToolResult) -> None:
    frame = wire.encode_frame(messages.result_to_json(result))
    (received,) = wire.FrameParser().feed(frame)
    assert messages.result_from_json(received) == result


@given(json_values)
def test_any_other_value_is_no_result(value: object) -> None:
    with pytest.raises(WireError):
        messages.result_from_json(value)


ids = st.from_regex(r"\A[0-9a-f]{32}\Z") | st.text(max_size=3)
almost_replies = st.fixed_dictionaries(
    {"id": ids},
    optional={
        "ok": json_values,
        "error": json_values | st.fixed_dictionaries({"code": st.just("cancelled"), "message": st.text()}),
        "progress": json_values
        | st.fixed_dictionaries({"done": json_values, "total": st.integers(), "what": st.text() | json_values}),
        "more": json_values,
    },
)


@given(almost_replies)
@settings(max_examples=300)
def test_a_reply_is_valid_or_a_wire_error(value: dict) -> None:
    try:
        reply = messages.validate(messages.Reply, value)
    except WireError:
        return
    assert set(value) <= {"id", "ok", "error", "progress"}
    if reply.progress is not None:
        assert reply.progress.done >= 0
        assert all(ord(one) >= 32 for one in reply.progress.what)


requests = st.fixed_dictionaries(
    {"id": ids, "op": st.sampled_from(["call", "cancel", "hello", "self_test", "shutdown", "eval"])},
    optional={"call": ids | json_values, "tool": st.text(), "arguments": json_objects, "seed": json_values,
              "fresh": json_values, "config": json_objects},
)  # fmt: skip


@given(requests)
@settings(max_examples=300)
def test_a_request_is_valid_or_a_wire_error(value: dict) -> None:
    with contextlib.suppress(WireError):
        assert messages.parse_request(value).id == value["id"]


def test_a_call_is_fresh_only_when_asked_and_a_cancellation_names_a_call() -> None:
    call = {"id": "f" * 32, "op": "call", "tool": "x", "arguments": {}, "seed": 0}
    read = messages.parse_request(call)
    assert isinstance(read, messages.Call)
    assert not read.fresh
    for bad in ({**call, "fresh": 1}, {"id": "f" * 32, "op": "cancel"}, {"id": "f" * 32, "op": "cancel", "call": "x"}):
        with pytest.raises(WireError):
            messages.parse_request(bad)


def test_a_bad_request_is_named() -> None:
    with pytest.raises(WireError, match="not a valid request"):
        messages.parse_request({"id": "f" * 32, "op": "eval", "code": "1"})
