"""A process killed at any moment: nothing acknowledged is lost, and the run goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from marple.errors import CorruptTraceError
from marple.traces import RunFolder

WRITER = """
import sys
from pathlib import Path
from marple.traces import RunFolder
path = Path(sys.argv[1])
run = RunFolder.reopen(path) if path.exists() else RunFolder.create(path.parent, path.name, {})
if not run.events():
    run.append("run_start", {})
while True:
    blob = run.put_blob(run.next_event_id().encode(), "text/plain")
    event = run.append("tool_call", {"text": "x" * 3000, "blob": blob})
    print(event.id, flush=True)
"""


def test_killed_while_appending_it_loses_nothing_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "r"
    acknowledged = 1
    for round_ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        for _ in range(20):
            last = writer.stdout.readline()
        time.sleep(0.007 * round_)
        writer.send_signal(signal.SIGKILL)
        last = ([last, *writer.stdout.readlines()])[-1]
        writer.wait()
        writer.stdout.close()

        number = int(last.strip()[1:])
        assert number >= acknowledged + 20
        events = RunFolder.open(path).events()
        assert len(events) in (number, number + 1)  # the last one may be on disk but not acknowledged
        assert [event.id for event in events] == [f"E{n}" for n in range(1, len(events) + 1)]
        assert RunFolder.open(path).status == "interrupted"
        acknowledged = len(events)

    with RunFolder.reopen(path) as run:
        assert run.append("plan", {}).id == f"E{acknowledged + 1}"
        for event in run.events()[1:-1]:
            assert run.get_blob(event.payload["blob"]) == event.id.encode()


@pytest.mark.parametrize("cut", ['{"id":"E3"', '{"id":"E3","payload":{}}', "\0" * 40, "\0" * 40 + "\n", "{"])
def test_a_torn_last_line_is_reported_by_readers_and_moved_aside_by_the_next_writer(run: RunFolder, cut: str) -> None:
    run.append("plan", {"text": "kept"})
    run.close()
    with (run.path / "events.jsonl").open("a") as file:
        file.write(cut)

    reader = RunFolder.open(run.path)
    assert [event.id for event in reader.events()] == ["E1", "E2"]
    assert reader.torn is not None
    assert "line 3" in reader.torn

    with RunFolder.reopen(run.path) as again:
        assert again.torn is not None
        assert "events.torn-1.jsonl" in again.torn
        assert again.append("plan", {"text": "next"}).id == "E3"
    assert (run.path / "events.torn-1.jsonl").read_text() == cut
    assert [event.payload.get("text") for event in RunFolder.open(run.path).events()[1:]] == ["kept", "next"]
    assert RunFolder.open(run.path).torn is None


def test_every_torn_line_is_kept_apart(run: RunFolder) -> None:
    run.close()
    for number in (1, 2):
        with (run.path / "events.jsonl").open("a") as file:
            file.write(f"rest {number}")
        RunFolder.reopen(run.path).close()
    kept = sorted(path.name for path in run.path.glob("events.torn-*"))
    assert kept == ["events.torn-1.jsonl", "events.torn-2.jsonl"]
    assert (run.path / "events.torn-2.jsonl").read_text() == "rest 2"


@pytest.mark.parametrize(
    "line",
    ["not json", "[]", '{"id":"E9"}', '{"id":"E2","payload":[]}', "", "[" * 100_000, '{"id":"E2","ts":"x"}'],
)
def test_a_corrupt_middle_line_is_named(run: RunFolder, line: str) -> None:
    run.append("plan", {})
    run.append("plan", {})
    run.close()
    log = run.path / "events.jsonl"
    lines = log.read_text().splitlines()
    log.write_text("\n".join([lines[0], line, lines[2], ""]))

    reader = RunFolder.open(run.path)
    with pytest.raises(CorruptTraceError, match=r"events\.jsonl: line 2 "):
        reader.events()
    with pytest.raises(CorruptTraceError, match="line 2 "):  # and again: a second look does not skip it
        reader.events()
    with pytest.raises(CorruptTraceError, match="line 2 "):
        RunFolder.reopen(run.path)
    assert run.status == "interrupted"  # the failed reopen gave its lock back


def test_a_lost_line_is_noticed(run: RunFolder) -> None:
    run.append("plan", {})
    run.append("plan", {})
    log = run.path / "events.jsonl"
    lines = log.read_text().splitlines(keepends=True)
    log.write_text(lines[0] + lines[2])
    with pytest.raises(CorruptTraceError, match="line 2 has the id 'E3'"):
        RunFolder.open(run.path).events()


def test_a_run_killed_before_its_first_event_can_go_on(run: RunFolder) -> None:
    run.close()
    (run.path / "events.jsonl").unlink()
    assert RunFolder.open(run.path).events() == []
    with RunFolder.reopen(run.path) as again:
        assert again.append("run_start", {}).id == "E1"


@pytest.mark.parametrize("content", [None, "", "{", "[]", "{}", '{"schema_version":1}'])
def test_a_folder_without_a_sound_run_json_is_no_run(run: RunFolder, content: str | None) -> None:
    spec = run.path / "run.json"
    spec.unlink() if content is None else spec.write_text(content)
    with pytest.raises(CorruptTraceError, match="r1"):
        RunFolder.open(run.path)
