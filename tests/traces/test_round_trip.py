"""What is written is what is read, for every JSON value."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marple.errors import CorruptTraceError, TraceError, UsageError
from marple.traces import EVENT_TYPES, ROLES, RunFolder

any_text = st.text(st.characters(), max_size=30)  # lone surrogates and control characters included
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)
payloads = st.dictionaries(any_text, json_values, max_size=5)
entries = st.tuples(
    st.sampled_from(EVENT_TYPES),
    payloads,
    st.sampled_from(ROLES),
    st.none() | st.just("E1"),
    st.none() | any_text,
    st.none() | st.floats(0, 1e6),
)


@settings(max_examples=60, deadline=None)
@given(spec=payloads, written=st.lists(entries, max_size=8), result=payloads)
def test_a_reader_sees_exactly_what_the_writer_returned(
    spec: dict[str, Any], written: list[tuple[Any, ...]], result: dict[str, Any]
) -> None:
    fixed = {"run_id", "schema_version", "created"}
    spec = {key: value for key, value in spec.items() if key not in fixed}
    with tempfile.TemporaryDirectory() as root:
        with RunFolder.create(Path(root), "r", spec) as writer:
            returned = [writer.append("run_start", {})]
            for type_, payload, role, parent, span, seconds in written:
                event = writer.append(type_, payload, role=role, parent=parent, span=span, seconds=seconds)
                assert event.payload == payload
                returned.append(event)
            writer.write_result({key: value for key, value in result.items() if key != "schema_version"})
        reader = RunFolder.open(Path(root) / "r")

        assert reader.events() == returned == writer.events()
        assert [event.id for event in returned] == [f"E{n}" for n in range(1, len(returned) + 1)]
        assert {key: value for key, value in reader.spec.items() if key not in fixed} == spec
        assert reader.result == {"schema_version": 1, **result}
        assert reader.torn is None


@settings(max_examples=40, deadline=None)
@given(first=st.lists(payloads, max_size=4), second=st.lists(payloads, max_size=4))
def test_a_resumed_run_continues_the_numbering(first: list[dict[str, Any]], second: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        with RunFolder.create(Path(root), "r", {}) as run:
            run.append("run_start", {})
            for payload in first:
                run.append("plan", payload)
        with RunFolder.reopen(Path(root) / "r") as run:
            assert run.next_event_id() == f"E{len(first) + 2}"
            for payload in second:
                run.append("plan", payload)

        events = RunFolder.open(Path(root) / "r").events()
        assert [event.payload for event in events[1:]] == first + second
        assert [event.id for event in events] == [f"E{n}" for n in range(1, len(events) + 1)]


def test_a_returned_event_does_not_change_with_the_callers_payload(run: RunFolder) -> None:
    payload: dict[str, Any] = {"items": [1]}
    run.append("plan", payload)
    payload["items"].append(2)

    assert run.events()[-1].payload == {"items": [1]}


def test_a_reader_follows_a_running_writer(run: RunFolder) -> None:
    reader = RunFolder.open(run.path)
    assert len(reader.events()) == 1
    run.append("plan", {"text": "first"})
    run.append("plan", {"text": "second"})

    assert [event.payload.get("text") for event in reader.events()[1:]] == ["first", "second"]
    assert reader.next_event_id() == "E4"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, object()])
def test_what_is_not_json_is_refused_and_leaves_no_trace(run: RunFolder, value: object) -> None:
    before = (run.path / "events.jsonl").read_bytes()
    with pytest.raises(ValueError, match="JSON"):
        run.append("measurement", {"value": value})
    with pytest.raises(ValueError, match="JSON"):
        run.write_result({"value": value})

    assert (run.path / "events.jsonl").read_bytes() == before
    assert run.result is None
    assert run.append("plan", {}).id == "E2"


def test_a_nest_deeper_than_json_can_hold_is_refused(run: RunFolder) -> None:
    deep: dict[str, Any] = {}
    for _ in range(5000):
        deep = {"d": deep}
    with pytest.raises(ValueError, match="JSON"):
        run.append("plan", deep)


def test_unknown_types_and_roles_are_refused_on_writing(run: RunFolder) -> None:
    with pytest.raises(ValueError, match="'tool_cal'"):
        run.append("tool_cal", {})
    with pytest.raises(ValueError, match="'robot'"):
        run.append("plan", {}, role="robot")


def test_the_first_event_is_run_start_with_the_schema_version(tmp_path: Path) -> None:
    with RunFolder.create(tmp_path, "r", {}) as run:
        with pytest.raises(ValueError, match="run_start"):
            run.append("plan", {})
        assert run.append("run_start", {"brief": "b"}).payload == {"schema_version": 1, "brief": "b"}
    assert json.loads((tmp_path / "r" / "events.jsonl").read_text().splitlines()[0])["payload"]["schema_version"] == 1


def test_unknown_fields_and_event_types_are_ignored_on_reading(run: RunFolder) -> None:
    line = {"id": "E2", "ts": 1.0, "type": "telepathy", "role": "medium", "payload": {"x": 1}, "mood": "good"}
    with (run.path / "events.jsonl").open("a") as file:
        file.write(json.dumps(line) + "\n")
    event = RunFolder.open(run.path).events()[-1]

    assert (event.type, event.role, event.payload) == ("telepathy", "medium", {"x": 1})


def test_a_newer_schema_is_refused_with_the_reason(run: RunFolder) -> None:
    spec = json.loads((run.path / "run.json").read_text())
    (run.path / "run.json").write_text(json.dumps({**spec, "schema_version": 2}))
    with pytest.raises(CorruptTraceError, match="schema_version 2; this Marple reads up to 1.*upgrade"):
        RunFolder.open(run.path)

    (run.path / "run.json").write_text(json.dumps(spec))
    log = run.path / "events.jsonl"
    log.write_text(log.read_text().replace('"schema_version":1', '"schema_version":7'))
    with pytest.raises(CorruptTraceError, match="line 1 has schema_version 7"):
        RunFolder.open(run.path).events()


def test_a_reader_and_a_closed_writer_do_not_write(run: RunFolder) -> None:
    reader = RunFolder.open(run.path)
    run.close()
    for folder in (reader, run):
        with pytest.raises(TraceError):
            folder.append("plan", {})
        with pytest.raises(TraceError):
            folder.put_blob(b"x", "text/plain")
        with pytest.raises(TraceError):
            folder.write_result({})
    assert len(run.events()) == 1


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/tmp/x", "-x", "a b", "x" * 200, "ä"])
def test_a_run_id_must_be_a_plain_folder_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="run id"):
        RunFolder.create(tmp_path / "runs", name, {})
    assert not (tmp_path / "runs").exists()


def test_an_existing_run_is_not_overwritten(run: RunFolder) -> None:
    with pytest.raises(UsageError, match="exists"):
        RunFolder.create(run.path.parent, "r1", {})
    assert len(RunFolder.open(run.path).events()) == 1


def test_a_spec_may_not_claim_another_run_id(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="run_id"):
        RunFolder.create(tmp_path, "r", {"run_id": "other"})
    assert list(tmp_path.iterdir()) == []


def test_the_status_follows_the_files(run: RunFolder) -> None:
    seen = [run.status]
    run.close()
    seen.append(run.status)
    with RunFolder.reopen(run.path) as again:
        seen.append(run.status)
        again.write_result({"status": "submitted"})
        seen.append(run.status)
    assert seen == ["running", "interrupted", "running", "done"]
    assert RunFolder.open(run.path).result == {"schema_version": 1, "status": "submitted"}
