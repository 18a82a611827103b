"""Finding runs again, also among broken folders."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from marple.errors import UnknownNameError, UsageError
from marple.traces import RunFolder, find_run, list_runs


def make(root: Path, run_id: str, *, created: float, result: dict[str, object] | None = None) -> Path:
    spec = {"case": "hidden-goal/example", "investigator": "prior", "model": "m/x", "created": created}
    with RunFolder.create(root, run_id, spec) as run:
        run.append("run_start", {})
        run.append("plan", {"text": "last"})
        if result is not None:
            run.write_result(result)
    return run.path


def test_runs_are_listed_newest_first_with_what_their_folders_tell(tmp_path: Path) -> None:
    make(tmp_path, "older", created=100.0)
    make(
        tmp_path,
        "newer",
        created=200.0,
        result={"status": "submitted", "usage": {"seconds": 12.5}, "scores": {"solved": 1}},
    )
    newer, older = list_runs(tmp_path)

    assert (newer.id, newer.status, newer.outcome, newer.seconds) == ("newer", "done", "submitted", 12.5)
    assert (newer.case, newer.investigator, newer.model) == ("hidden-goal/example", "prior", "m/x")
    assert newer.scores == {"solved": 1}
    assert (older.id, older.status, older.outcome, older.scores) == ("older", "interrupted", None, {})
    assert older.seconds == pytest.approx(RunFolder.open(older.path).events()[-1].ts - 100.0)
    assert json.loads(json.dumps(newer.to_dict()))["path"] == str(tmp_path / "newer")


def test_a_broken_folder_is_listed_with_its_problem_and_hides_no_other(tmp_path: Path) -> None:
    make(tmp_path, "good", created=1.0)
    (tmp_path / "empty").mkdir()
    broken = make(tmp_path, "broken", created=2.0, result={"status": "error"})
    (broken / "result.json").write_text("{")
    torn = make(tmp_path, "torn", created=3.0)
    with (torn / "events.jsonl").open("a") as file:
        file.write('{"id":')
    newer = make(tmp_path, "newer", created=4.0)
    (newer / "run.json").write_text('{"schema_version": 99}')
    (tmp_path / "a file").write_text("not a run")
    (tmp_path / ".hidden").mkdir()

    runs = {run.id: run for run in list_runs(tmp_path)}
    assert {run_id: run.status for run_id, run in runs.items()} == {
        "good": "interrupted",
        "empty": "broken",
        "broken": "broken",
        "torn": "interrupted",
        "newer": "broken",
    }
    assert "no run.json" in (runs["empty"].problem or "")
    assert "result.json is not JSON" in (runs["broken"].problem or "")
    assert "upgrade" in (runs["newer"].problem or "")
    assert runs["good"].problem is None


def test_a_missing_runs_folder_is_empty_and_a_file_is_refused(tmp_path: Path) -> None:
    assert list_runs(tmp_path / "none") == []
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="file"):
        list_runs(tmp_path / "file")


def test_a_run_is_found_by_id_by_prefix_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = make(tmp_path / "runs", "20261120-alpha", created=1.0)
    make(tmp_path / "runs", "20261121-alpha-2", created=1.0)
    make(tmp_path / "runs", "20261121-alpha", created=1.0)
    root = tmp_path / "runs"

    for text in ("20261120-alpha", "20261120", str(path), f"{path}/"):
        assert find_run(root, text).run_id == "20261120-alpha"
    assert find_run(root, "20261121-alpha").run_id == "20261121-alpha"  # an exact id wins over a longer one
    monkeypatch.chdir(root)
    assert find_run(tmp_path / "elsewhere", "20261120-alpha").run_id == "20261120-alpha"


def test_an_unknown_or_ambiguous_run_is_refused_with_the_choices(tmp_path: Path) -> None:
    make(tmp_path, "alpha-1", created=1.0)
    make(tmp_path, "alpha-2", created=1.0)
    with pytest.raises(UnknownNameError, match="'alpah-1'; did you mean alpha-1"):
        find_run(tmp_path, "alpah-1")
    with pytest.raises(UsageError, match="fits 2 runs: alpha-1, alpha-2"):
        find_run(tmp_path, "alpha")
    with pytest.raises(UnknownNameError):
        find_run(tmp_path, "")
