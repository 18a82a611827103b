"""Whatever bytes a worker sends: a value that Python's own parser reads too, or WireError, in bounded memory."""

from __future__ import annotations

import base64
import collections
import contextlib
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from benchmarks import fuzz_frames
from benchmarks.fuzz_frames import BODIES, ID, MORSELS, RESULT, VALID, judge, raw, schemas
from marple.errors import WireError
from marple.tools import messages, wire
from marple.tools.faults import describe_fault

MIB = 2**20


def spent(body: bytes) -> int:
    """Most bytes held while a body is read and made into a result."""
    tracemalloc.start()
    try:
        with contextlib.suppress(WireError):
            value = wire.decode_body(body)
            messages.result_from_json(messages.validate(messages.Reply, value).ok)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def reply(unit: bytes, count: int) -> bytes:
    values = b"[" + b",".join([unit] * count) + b"]"
    return json.dumps({"id": ID, "ok": {**RESULT, "data": {"x": "HERE"}}}).encode().replace(b'"HERE"', values)


# ------------------------------------------------------------------------------------------ properties


@given(st.binary(max_size=300), st.lists(st.integers(0, 300), max_size=4))
@settings(max_examples=300)
def test_noise_is_refused_with_the_one_error_there_is(noise: bytes, cuts: list[int]) -> None:
    for stream in (noise, raw(noise)):
        judge(stream, sorted(cut for cut in cuts if cut <= len(stream)))


@given(
    st.sampled_from(BODIES),
    st.lists(st.tuples(st.integers(0, 400), st.integers(0, 12), st.sampled_from(MORSELS)), min_size=1, max_size=4),
)
@settings(max_examples=500)
def test_a_valid_frame_with_a_few_changes_is_read_as_python_reads_it_or_refused(
    body: bytes, changes: list[tuple[int, int, bytes]]
) -> None:
    changed = bytearray(body)
    for start, length, morsel in changes:
        changed[start : start + length] = morsel
    judge(raw(bytes(changed)), [])


@given(st.sampled_from(BODIES), st.integers(0, 2**32 - 1) | st.integers(0, 400))
@settings(max_examples=300)
def test_a_length_that_lies_is_no_way_in(body: bytes, length: int) -> None:
    judge(raw(body, length) + raw(body), [3])


@pytest.mark.parametrize("body", BODIES)
def test_a_frame_cut_at_every_byte_is_the_same_frame(body: bytes) -> None:
    stream = raw(body) * 2
    parser, received = wire.FrameParser(), []
    for position in range(len(stream)):
        received += parser.feed(stream[position : position + 1])
        assert parser.pending <= len(body) + 4
    assert received == [json.loads(body)] * 2
    for cut in range(len(stream) + 1):
        assert judge(stream, [cut])["frames accepted"] == 2


anything: Any = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary().map(repr),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(VALID), st.data())
@settings(max_examples=500)
def test_a_field_of_another_type_makes_no_message_of_another_kind(value: dict[str, Any], data: st.DataObject) -> None:
    changed = json.loads(json.dumps(value))
    place: Any = changed
    key = data.draw(st.sampled_from(sorted(place)))
    while isinstance(place[key], dict) and place[key] and data.draw(st.booleans()):
        place = place[key]
        key = data.draw(st.sampled_from(sorted(place)))
    place[key] = data.draw(anything)
    with contextlib.suppress(WireError):
        body = wire.encode_body(changed)
        schemas(wire.decode_body(body))


@given(st.text(max_size=30) | st.binary(max_size=30).map(lambda raw: base64.b64encode(raw).decode()))
@example("A" * 6_000_000)
@example("====")
@example("QUFB\n")
@example("é===")
def test_an_artifact_is_the_bytes_that_were_sent_or_an_error(text: str) -> None:
    value = {**RESULT, "artifacts": [{**fuzz_frames.ARTIFACT, "base64": text}]}
    try:
        (artifact,) = messages.result_from_json(value).artifacts
    except WireError:
        return
    assert base64.b64encode(artifact.data).decode() == text


@given(st.text(max_size=110))
@example("../x")
@example("/etc/passwd")
@example("..")
@example(".")
@example("a\x00b")
@example("a\n")
@example("‮gnp.x")
@example("-rf")
@example("a/b")
@example("a\\b")
@example("A" * 101)
@example("раypal.png")
def test_a_name_of_an_artifact_that_could_be_a_path_or_a_trick_is_refused(name: str) -> None:
    value = {**RESULT, "artifacts": [{**fuzz_frames.ARTIFACT, "name": name}]}
    try:
        (artifact,) = messages.result_from_json(value).artifacts
    except WireError:
        return
    assert artifact.name.isascii()
    assert artifact.name.isprintable()
    assert artifact.name[0].isalnum()
    assert not set(artifact.name) & set("/\\:")
    assert len(artifact.name) <= 100


# ------------------------------------------------------------------------------------------ bounds


@pytest.mark.parametrize("unit", [b"[]", b"{}", b'{"a":0}', b"0", b'"aa"', b'""', b"1.5", b"[[[[]]]]", b'"\\"[{"'])
def test_a_frame_of_nothing_but_containers_never_becomes_objects(unit: bytes) -> None:
    body = reply(unit, (wire.MAX_FRAME_BYTES - 1000) // (len(unit) + 1))
    assert len(body) <= wire.MAX_FRAME_BYTES
    assert spent(body) < 64 * MIB


@pytest.mark.parametrize("unit", [b"[]", b'{"a":0}', b'"123456"', b"1.5"])
def test_the_most_that_is_accepted_stays_small(unit: bytes) -> None:
    count = wire.MAX_CONTAINERS if unit[:1] in b"[{" else wire.MAX_VALUES
    body = reply(unit, count - 100)
    assert wire.decode_body(body)
    assert spent(body) < 100 * MIB


def test_half_a_million_unknown_keys_are_one_complaint() -> None:
    keys = {str(number): 0 for number in range(wire.MAX_VALUES // 2)}
    for place in ({"id": ID, **keys}, {"id": ID, "ok": keys}, {"id": ID, "ok": {**RESULT, "cost": keys}}):
        assert spent(json.dumps(place).encode()) < 100 * MIB


@pytest.mark.parametrize("key", ["handles", "artifacts"])
@pytest.mark.parametrize("item", [{}, 0, "x"])
def test_a_long_list_of_wrong_things_is_a_short_complaint(key: str, item: object) -> None:
    body = json.dumps({"id": ID, "ok": {**RESULT, key: [item] * (wire.MAX_CONTAINERS - 100)}}).encode()
    assert spent(body) < 60 * MIB
    with pytest.raises(WireError) as caught:
        messages.result_from_json(json.loads(body)["ok"])
    assert len(str(caught.value)) < 1000


def test_commas_and_brackets_in_texts_are_not_counted() -> None:
    value = {"text": "[{,]}" * (wire.MAX_VALUES + 1), "quotes": ['\\",[', "{"]}
    assert wire.decode_body(wire.encode_body(value)) == value


@pytest.mark.parametrize("value", [{"x": [0] * wire.MAX_VALUES}, {"x": [[]] * wire.MAX_CONTAINERS}])
def test_a_result_of_too_many_values_is_refused_where_it_is_made_as_too_large(value: dict[str, Any]) -> None:
    with pytest.raises(wire.TooManyValuesError) as caught:
        wire.encode_frame(value)
    assert describe_fault(caught.value)[0] == "result_too_large"


def test_ten_thousand_hostile_streams_leave_memory_as_it_was() -> None:
    fuzz_frames.run(1000, seed=1)
    tracemalloc.start()
    try:
        figures = fuzz_frames.run(9000, seed=2)
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert kept < 2 * MIB
    assert peak < 200 * MIB
    reached = collections.Counter({name: count for name, count in figures.items() if ": " in name})
    for kind in ("reply", "result", "hello", "outcomes", "digests", "request"):
        assert reached[f"valid: {kind}"] > 50, "the fuzzer must reach every schema"
    assert len([name for name in reached if name.startswith("refused")]) >= 9
