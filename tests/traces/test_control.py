"""What somebody outside wants of a run: asked for in its folder, by any process, and never misread."""

from __future__ import annotations

import json
import re
import threading
from pathlib import Path

import jsonschema
import pytest

from marple.errors import CorruptTraceError, UsageError
from marple.traces import RunFolder, load_schema
from marple.traces.control import CONTROL_FILE, latest, request, requests, wanted


def test_nothing_asked_means_go_and_the_last_request_counts(run: RunFolder) -> None:
    assert wanted(run.path) == "go"
    assert latest(run.path) is None
    for asked in ("pause", "go", "pause"):
        request(run.path, asked, by="a test")
        assert wanted(run.path) == asked
    assert [one.wanted for one in requests(run.path)] == ["pause", "go", "pause"]
    assert latest(run.path) == requests(run.path)[-1]


def test_a_cancel_is_final_and_may_be_repeated(run: RunFolder) -> None:
    first = request(run.path, "cancel", by="one")
    request(run.path, "cancel", by="two")
    with pytest.raises(UsageError, match="to be cancelled; nothing takes that back"):
        request(run.path, "go")
    with (run.path / CONTROL_FILE).open("a") as file:  # another program that does not know the rule
        file.write(json.dumps({"ts": 9e9, "wanted": "go"}) + "\n")
    assert latest(run.path) == first


@pytest.mark.parametrize(
    "line",
    [
        b'{"ts": 1.0, "wanted": "can',
        b'{"ts": 1.0, "wanted": "cancel"}',  # no line feed: it is still being written
        b'{"ts": "now", "wanted": "cancel"}\n',
        b'{"ts": NaN, "wanted": "cancel"}\n',
        b'{"ts": 1' + b"0" * 400 + b', "wanted": "cancel"}\n',
        b'{"ts": true, "wanted": "cancel"}\n',
        b'{"ts": 1.0, "wanted": "stop"}\n',
        b'{"ts": 1.0, "wanted": ["cancel"]}\n',
        b'["cancel"]\n',
        b"[" * 100_000 + b"\n",
        b"\xff\xfe\0\n",
        b"cancel\n",
    ],
)
def test_half_a_word_never_ends_a_run(run: RunFolder, line: bytes) -> None:
    request(run.path, "pause")
    with (run.path / CONTROL_FILE).open("ab") as file:
        file.write(line)
    assert wanted(run.path) == "pause"
    request(run.path, "go")
    assert wanted(run.path) == "go"
    assert len(requests(run.path)) == 2


def test_requests_of_many_writers_are_all_kept_whole(run: RunFolder) -> None:
    def ask(name: str) -> None:
        for number in range(5):
            request(run.path, "pause", by=f"{name}{number}")

    writers = [threading.Thread(target=ask, args=(name,)) for name in "abcd"]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {one.by for one in requests(run.path)} == {f"{name}{number}" for name in "abcd" for number in range(5)}


def test_a_line_follows_the_published_schema_whatever_the_name(run: RunFolder) -> None:
    schema = load_schema()
    described = jsonschema.Draft202012Validator({"$ref": "#/$defs/control_request", "$defs": schema["$defs"]})
    request(run.path, "pause")
    request(run.path, "go", by='\n{"wanted": "cancel"}\n\udc80' + "x" * 1000)
    lines = (run.path / CONTROL_FILE).read_text().splitlines()
    assert len(lines) == 2
    for line in lines:
        described.validate(json.loads(line))
    assert wanted(run.path) == "go"
    assert not described.is_valid({"ts": 1.0, "wanted": "stop"})


def test_the_page_on_it_is_right(run: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "supervision.md").read_text()
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    exec(compile(re.sub(r'Path\("[^"]*"\)', f"Path({str(run.path)!r})", code), "supervision.md", "exec"), {})
    assert capsys.readouterr().out == "pause\n"
    (shown,) = re.findall(r"^```json\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    described = load_schema()["$defs"]["control_request"]
    assert json.loads(shown)["required"] == described["required"]
    assert json.loads(shown)["properties"].keys() == described["properties"].keys()
    assert json.loads(shown)["properties"]["wanted"] == described["properties"]["wanted"]


def test_what_is_done_or_no_run_is_refused(run: RunFolder, tmp_path: Path) -> None:
    with pytest.raises(CorruptTraceError, match="not a run folder"):
        request(tmp_path / "nowhere", "pause")
    with pytest.raises(ValueError, match="'stop' is not one of"):
        request(run.path, "stop")  # type: ignore[arg-type]
    run.write_result({"status": "submitted"})
    with pytest.raises(UsageError, match="is done"):
        request(run.path, "cancel")
    assert not (run.path / CONTROL_FILE).exists()
