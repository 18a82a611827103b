"""What ``read_result`` shows of a call: pages that end where a row does, and nothing twice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from marple.agent.boundary import result_view
from marple.agent.notebook import PAGE, Notebook
from marple.tasks.kind import load_kinds
from marple.traces import Event, RunFolder


@pytest.fixture
def folder(tmp_path: Path) -> RunFolder:
    made = RunFolder.create(tmp_path, "run", {"case": "x"})
    made.append("run_start", {"case": "x"})
    return made


def pages(folder: RunFolder, text: str, data: dict[str, Any]) -> list[str]:
    payload = {"tool": "search_transcripts", "status": "ok", "on_target": True, "text": text, "data": data}
    event = folder.append("tool_call", {**payload, "place": [1, 0]})
    notebook, offset, read = Notebook(folder, load_kinds()["hidden-goal"].answer, {}), 0, list[str]()
    while True:
        read.append(notebook.call("read_result", {"event": event.id, "offset": offset}, (2, len(read))))
        on = re.search(r"go on with offset (\d+)\)\Z", read[-1])
        if on is None:
            return read
        offset = int(on[1])


def lines_shown(page: str) -> list[str]:
    event = Event(
        "E9", 1.0, "tool_call", "host", None, None, None, {"tool": "read_result", "status": "ok", "text": page}
    )
    lines: list[str] = json.loads(result_view(event, "untrusted"))["untrusted"]
    return lines


def test_pages_end_with_whole_rows_and_no_empty_line(folder: RunFolder) -> None:
    rows = [{"id": f"t{at}", "messages": ["a" * 700]} for at in range(60)]
    read = pages(folder, "some", {"hits": rows})
    assert len(read) > 3
    shown = [line for page in read for line in lines_shown(page)]
    assert [json.loads(line) for line in shown if line.startswith("{")] == rows
    assert all(line for page in read for line in lines_shown(page))


def test_a_row_longer_than_a_page_is_shown_in_pieces_that_fill_pages(folder: RunFolder) -> None:
    long = "".join(chr(97 + at % 26) for at in range(2 * PAGE + 500))
    read = pages(folder, "some", {"hits": [{"id": "a"}, {"id": long}, {"id": "z"}]})
    assert [len(lines_shown(page)[-1]) for page in read[1:3]] == [PAGE, PAGE]
    assert long in "".join(page.rpartition("\n(characters ")[0] for page in read)
    assert lines_shown(read[-1])[-1] == '{"id": "z"}'


def test_transcripts_are_shown_once(folder: RunFolder) -> None:
    turns = [{"role": "user", "content": "nymar?"}]
    (page,) = pages(folder, '["t1"]\n  user: "nymar?"', {"transcripts": [{"id": "t1", "messages": turns}]})
    assert page.count("nymar?") == 1
