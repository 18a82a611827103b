"""``marple export`` and ``marple import`` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from marple.cli import app
from marple.errors import UnknownNameError, UsageError
from tests.exports.conftest import Make


def run(*words: object) -> str:
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.mark.parametrize(
    ("to", "ending"), [("html", ".html"), ("markdown", ".md"), ("notebook", ".ipynb"), ("docent", ".docent.json")]
)
def test_a_run_is_written_beside_and_its_file_named(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, ending: str
) -> None:
    make("r1")
    monkeypatch.chdir(tmp_path)
    assert run("export", "r1", "--to", to).split() == [f"r1{ending}"]
    assert (tmp_path / f"r1{ending}").stat().st_size > 500


def test_a_whole_evaluation_is_written_into_a_folder(make: Make, tmp_path: Path) -> None:
    for number in range(3):
        make(f"r{number}", investigator="prior" if number else "llm")
    (tmp_path / "evaluation.json").write_text("{}")
    files = run("export", tmp_path, "--to", "inspect", "--out", tmp_path / "logs").split()
    assert sorted(Path(file).name for file in files) == ["llm-scripted-x.eval", "prior-scripted-x.eval"]
    pages = run("export", tmp_path, "--to", "html", "--out", tmp_path / "pages").split()
    assert len(pages) == 3


def test_a_log_written_is_imported_and_found_again(make: Make, tmp_path: Path) -> None:
    made = make("r1")
    run("export", made.path, "--to", "inspect", "--out", tmp_path / "x.eval")
    (folder,) = run("import", "inspect", tmp_path / "x.eval", "--runs", tmp_path / "in").split()
    assert json.loads((Path(folder) / "run.json").read_text())["imported_from"] == "inspect"


def test_nothing_is_written_over_unless_told(make: Make, tmp_path: Path) -> None:
    made, file = make(), tmp_path / "mine.md"
    file.write_text("mine")
    with pytest.raises(UsageError, match="--force"):
        run("export", made.path, "--to", "markdown", "--out", file)
    assert file.read_text() == "mine"
    run("export", made.path, "--to", "markdown", "--out", file, "--force")
    assert "Verdict" in file.read_text()


def test_wrong_names_say_what_is_allowed(make: Make, tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="notebook"):
        run("export", make().path, "--to", "pdf")
    with pytest.raises(UnknownNameError, match="unknown run"):
        run("export", "nothing", "--to", "html", "--runs", tmp_path / "runs")
    with pytest.raises(UnknownNameError, match="inspect"):
        run("import", "docent", tmp_path / "x.json")
