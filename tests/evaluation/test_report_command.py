"""``marple report`` on a real evaluation, played by real runs and not finished."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from marple.agent.evaluation.report import write_report
from marple.errors import CorruptTraceError


def marple(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "marple.cli", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two of six samples are played: the prior on both sorts of target."""
    folder = tmp_path_factory.mktemp("evaluation") / "out"
    grid = ("nano-quick", "--arms", "prior", "--epochs", 2, "--out", folder)
    done = marple("evaluate", *grid, "--only", "prior/*/nano-0[39]/1")
    assert done.returncode in (0, 3), done.stderr
    return folder


def test_the_report_of_an_unfinished_evaluation_says_what_is_not_there(evaluation: Path) -> None:
    done = marple("report", evaluation)
    assert done.returncode == 0, done.stderr
    written = [Path(line) for line in done.stdout.split()]
    assert [path.name for path in written] == ["report.html", "report.md", "results.json", "results.csv", "samples.csv"]
    results = json.loads((evaluation / "results.json").read_text())
    assert (results["counts"]["scored"], results["counts"]["samples"]) == (2, 6)
    solved = results["headline"][0]["measures"]["solved"]
    # The truth of the case that nobody has played is known here: it is among the organisms all the same.
    assert (solved["n"], solved["n_total"], solved["value"]) == (1, 4, 0.0)
    assert results["outcomes"][0]["by_status"] == {"not_run": 4, "submitted": 2}
    assert "torch" in results["versions"]
    for sample in results["samples"]:
        assert bool(sample["run"]) == (sample["status"] == "submitted")
        assert (evaluation / sample["run"] / "result.json").is_file() == bool(sample["run"])


def test_the_same_evaluation_gives_the_same_bytes(evaluation: Path) -> None:
    def bytes_of() -> list[bytes]:
        return [path.read_bytes() for path in write_report(evaluation)]

    assert bytes_of() == bytes_of()


def test_the_results_can_be_had_on_standard_output(evaluation: Path) -> None:
    done = marple("report", evaluation, "--json")
    assert json.loads(done.stdout) == json.loads((evaluation / "results.json").read_text())


def test_a_folder_that_is_no_evaluation_is_a_mistake_and_nothing_is_written(tmp_path: Path) -> None:
    done = marple("report", tmp_path)
    assert done.returncode == 2
    assert "evaluation.json" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_plan_that_was_changed_since_is_not_reported(evaluation: Path, tmp_path: Path) -> None:
    """The criteria were written before the first run, or the report does not speak of them."""
    said = json.loads((evaluation / "evaluation.json").read_text())
    changed = {**said, "criteria": {"success": "whatever came out"}}
    (tmp_path / "evaluation.json").write_text(json.dumps(changed))
    with pytest.raises(CorruptTraceError, match="was changed since"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["evaluation.json"]
