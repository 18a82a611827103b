"""The index can be thrown away at any time, finds what is said, and follows what changes; labels are kept."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from marple.errors import StorageError, UsageError
from marple.traces.index import _ROOM, NAME, RunIndex
from marple.traces.labels import add_label, read_labels, remove_label
from tests.review.made_runs import finished_run, long_run, written_run


def read_all(index: RunIndex) -> None:
    index.entries()
    while index.read_next():
        pass


def found(index: RunIndex, query: str) -> set[tuple[str, str]]:
    return {(hit.run, hit.event) for hit in index.search(query)}


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    finished_run(tmp_path, "one")
    finished_run(tmp_path, "two", solved=False, case="hidden-goal/nano-07")
    return tmp_path


def test_an_entry_says_what_the_list_shows(runs: Path) -> None:
    entries = {entry.name: entry for entry in RunIndex(runs).entries()}
    one, two = entries["one"], entries["two"]
    assert (one.verdict, one.brier, one.skill, one.replicated, one.claims) == ("solved", 0.02, 0.8, 1, 2)
    assert (one.case, one.kind, one.arm, one.model) == ("hidden-goal/nano-09", "hidden-goal", "llm", "example/model")
    assert (one.cost, one.turns, one.seconds, one.state, one.last) == (0.04, 2, 7.0, "done", "E16")
    assert two.verdict == "missed"


def test_search_finds_words_phrases_and_beginnings_in_every_run(runs: Path) -> None:
    index = RunIndex(runs)
    read_all(index)
    assert {("one", "E10"), ("two", "E10")} <= found(index, '"drivers are told"')
    assert found(index, '"told drivers are"') == set()
    assert ("one", "E4") in found(index, "kandor"), "replies in the data are searched, too"
    assert found(index, "kand*") == found(index, "kandor") != set()
    assert ("one", "E2") in found(index, "cheap FIRST")
    parts = next(hit for hit in index.search("cheap") if hit.run == "one").parts
    assert ("Cheap", True) in parts


@pytest.mark.parametrize("query", ['"', "AND", "NEAR(", "*", "a:b", "-x", "\0", "(((", '"" *', "velora OR", "\ud800"])
def test_no_query_breaks_the_search(runs: Path, query: str) -> None:
    index = RunIndex(runs)
    read_all(index)
    index.search(query)


def test_the_index_follows_new_changed_and_deleted_runs(runs: Path) -> None:
    index = RunIndex(runs)
    read_all(index)
    add_label(runs / "one", label="doubt", comment="the zygote")
    shutil.rmtree(runs / "two")
    finished_run(runs, "three")
    read_all(index)
    assert {entry.name for entry in index.entries()} == {"one", "three"}
    assert found(index, "zygote") == {("one", "")}
    assert {run for run, _ in found(index, "velora")} == {"one", "three"}
    left = f"SELECT count(*) FROM texts WHERE rowid / {_ROOM} NOT IN (SELECT no FROM runs)"
    assert index._db.execute(left).fetchone() == (0,), "the text of a run that is gone is gone"


@pytest.mark.parametrize("harm", ["deleted", "garbage", "another version"])
def test_the_index_is_made_anew_where_it_is_lost(runs: Path, harm: str) -> None:
    index = RunIndex(runs)
    read_all(index)
    if harm == "another version":
        index._db.execute("PRAGMA user_version = 99")
    index.close()
    if harm == "deleted":
        (runs / NAME).unlink()
    elif harm == "garbage":
        (runs / NAME).write_bytes(b"not a database" * 1000)
    again = RunIndex(runs)
    read_all(again)
    assert {run for run, _ in found(again, "velora")} == {"one", "two"}


def test_a_run_that_cannot_be_read_is_listed_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    written_run(tmp_path, "newer", lines=[], schema_version=9)
    entries = {entry.name: entry for entry in RunIndex(tmp_path).entries()}
    assert entries["empty"].state == entries["newer"].state == "broken"
    assert "run.json" in str(entries["empty"].problem)
    assert "newer Marple" in str(entries["newer"].problem)


def test_an_unfinished_run_is_interrupted_unless_somebody_writes_it(tmp_path: Path) -> None:
    long_run(tmp_path, "left", 4)
    assert [entry.state for entry in RunIndex(tmp_path).entries()] == ["interrupted"]


def test_labels_stand_until_they_are_taken_back(runs: Path) -> None:
    first = add_label(runs / "one", label=" believe ", by="ann")
    second = add_label(runs / "one", event="E4", comment="look\nhere \U000e0041 \ud800")
    assert read_labels(runs / "one") == [first, second]
    assert (first.label, second.event, second.comment) == ("believe", "E4", "look\nhere \U000e0041 \ud800")
    remove_label(runs / "one", first.id)
    assert read_labels(runs / "one") == [second]
    with pytest.raises(UsageError, match="no label"):
        remove_label(runs / "one", first.id)


def test_a_torn_label_costs_nothing_but_itself(runs: Path) -> None:
    first = add_label(runs / "one", label="believe")
    with (runs / "one" / "review.jsonl").open("ab") as file:
        file.write(b'{"id": "cut')
    second = add_label(runs / "one", label="doubt")
    assert read_labels(runs / "one") == [first, second]
    lines = (runs / "one" / "review.jsonl").read_bytes().splitlines()
    assert json.loads(lines[-1])["label"] == "doubt"


def test_a_label_needs_words_and_a_run(runs: Path) -> None:
    with pytest.raises(UsageError, match="empty"):
        add_label(runs / "one", label="  ", comment="\n")
    with pytest.raises(UsageError, match="at most"):
        add_label(runs / "one", label="x" * 61)
    with pytest.raises(StorageError, match="gone"):
        add_label(runs / "none", label="believe")
    assert read_labels(runs / "none") == []
