"""A key that reaches the trace store does not reach the disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marple.traces import RunFolder
from marple.traces.secrets import REMOVED, Scrubber

KEY = "sk-test-0123456789abcdef"
AWKWARD = 'pa"ss\\wörd-"type"'


def everything_in(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file())


@pytest.mark.parametrize("key", [KEY, AWKWARD])
def test_a_key_is_removed_wherever_it_stands(tmp_path: Path, key: str) -> None:
    with RunFolder.create(tmp_path, "r", {"note": key}, secrets=[key]) as run:
        event = run.append(
            "run_start",
            {
                "header": f"Bearer {key}.",
                key: {"nested": [key, {"deeper": key}]},
                "raw": json.dumps({"arguments": key}),
                "raw twice": json.dumps(json.dumps([key])),
            },
            span=key,
        )
        ref = run.put_blob(f"log: {key}".encode(), "text/plain")
        run.write_result({"status": "error", "message": key})

    written = everything_in(tmp_path)
    for form in (key, json.dumps(key)[1:-1], json.dumps(key, ensure_ascii=False)[1:-1]):
        assert form.encode() not in written
    assert event == RunFolder.open(run.path).events()[0]
    assert event.payload["header"] == f"Bearer {REMOVED}."
    assert event.payload[REMOVED] == {"nested": [REMOVED, {"deeper": REMOVED}]}
    assert json.loads(event.payload["raw"]) == {"arguments": REMOVED}
    assert run.get_blob(ref) == f"log: {REMOVED}".encode()


def test_a_resumed_run_keeps_the_keys_out_too(run: RunFolder) -> None:
    run.close()
    with RunFolder.reopen(run.path, secrets=[KEY]) as again:
        again.append("error", {"message": f"401 for {KEY}"})
    assert KEY.encode() not in everything_in(run.path)


def test_a_key_that_contains_another_leaves_no_rest(run: RunFolder) -> None:
    assert Scrubber([KEY, KEY + "-suffix"]).text(f"<{KEY}-suffix>") == f"<{REMOVED}>"


def test_a_placeholder_of_a_local_server_is_no_secret() -> None:
    assert Scrubber(["", "x", "EMPTY"]).text("x marks EMPTY") == "x marks EMPTY"


@settings(max_examples=100, deadline=None)
@given(
    secret=st.text(st.characters(codec="utf-8"), min_size=8, max_size=20),
    value=st.recursive(st.text(max_size=10) | st.integers(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)),
)
def test_what_is_left_is_valid_json_without_the_key(secret: str, value: Any) -> None:
    hidden = {"value": value, "before " + secret + " after": [secret]}
    cleaned = json.loads(Scrubber([secret]).json(json.dumps(hidden)))
    if secret not in REMOVED:
        assert secret not in json.dumps(cleaned, ensure_ascii=False).replace(REMOVED, "")
