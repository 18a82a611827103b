"""``python -m benchmarks`` measures every row of its groups and refuses to time what computes something else."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks import capture, isolation, steering
from benchmarks.__main__ import GROUPS, main
from benchmarks.models import SHAPES, Model, Work
from benchmarks.plan import Plan
from benchmarks.sae import check_features, plain, random_weights
from benchmarks.table import Row
from marple.sandboxes.backend import BackendStatus
from marple.tools.saes.sae import SAE
from marple.tools.saes.weights import Weights

ROOT = Path(__file__).resolve().parents[2]
IN_ONE_PROCESS = ("capture", "overhead", "steering", "queue", "sae")


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The table of all groups that start no process, on tiny sizes, without other libraries."""
    path = tmp_path_factory.mktemp("table") / "table.json"
    groups = [option for name in IN_ONE_PROCESS for option in ("--only", name)]
    options = ["--quick", "--no-peers", "--figures", "--shape", "tiny", "--json", str(path), *groups]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def test_every_row_has_ours_floor_peers_target_and_met(document: dict[str, Any]) -> None:
    rows = document["rows"]
    assert len(rows) == 12
    for row in rows:
        assert {"operation", "ours", "floor", "peers", "target", "met", "spread", "unit"} <= row.keys()
        assert row["error"] == ""
        assert math.isfinite(row["ours"])
        ours, target = (row["ours"], row["target"]) if row["sense"] == "at most" else (row["target"], row["ours"])
        assert row["met"] is (ours <= target)
        low, high = row["spread"]
        assert low <= row["ours"] <= high


def test_nothing_is_timed_that_was_not_checked(document: dict[str, Any]) -> None:
    checked = {row["operation"].split(",")[0]: row["checked"] for row in document["rows"]}
    assert "100%" in checked["steered generation"]
    assert "100%" in checked["ragged queue of 8 mixed requests"]
    assert "equal to torch hooks" in checked["capture all layers"]


def test_the_machine_and_the_versions_are_told(document: dict[str, Any]) -> None:
    machine = document["machine"]
    assert machine["versions"]["torch"] == torch.__version__
    assert machine["versions"]["marple"] is not None
    assert machine["threads"] == 1
    assert machine["shape"] == "tiny"


def test_absolute_figures_stand_beside_the_table(document: dict[str, Any]) -> None:
    speeds = document["device_figures"]["tokens per second"]
    assert {"transformers, unsteered", "ours, unsteered", "ours, a vector for each row"} <= speeds.keys()
    assert all(speed > 0 for speed in speeds.values())


@pytest.fixture
def model() -> Model:
    return Model(SHAPES["tiny"])


class Broken:
    """A library that gives every row the first row's vector, and reads one layer too early."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def steer(self, ids: torch.Tensor, layer: int, vector: torch.Tensor, new: int) -> torch.Tensor:
        return steering.hooked(self.model, ids, vector * 1.5, new)

    def capture(self, ids: torch.Tensor, layers: range) -> list[torch.Tensor]:
        held = capture.hooked(self.model, ids, layers)
        return [held[0], *held[:-1]]


def test_other_activations_are_refused(model: Model) -> None:
    inputs, others = (capture._inputs(model, 2, 5, 0) for _ in range(2))
    assert capture.check_captures(model, inputs, {}) < 1e-4
    with pytest.raises(AssertionError, match="ours captures something else"):
        capture.check_captures(model, capture.Inputs(others.prompts, inputs.ids), {})


def test_other_tokens_are_refused(model: Model) -> None:
    work = Work.quick()
    inputs, others = (steering._inputs(model, work, 0) for _ in range(2))
    assert steering.check_steering(model, work, inputs, {}) == 1.0
    mixed = steering.Inputs(others.prompts, inputs.ids, inputs.vectors)
    with pytest.raises(AssertionError, match="steered tokens differ"):
        steering.check_steering(model, work, mixed, {})


def test_a_library_that_does_something_else_is_left_out(model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    work = Work.quick()
    for group in ("capture", "steering"):
        peers: dict[str, Any] = {"broken": Broken(model)}
        if group == "capture":
            capture.check_captures(model, capture._inputs(model, 2, 5, 0), peers)
        else:
            steering.check_steering(model, work, steering._inputs(model, work, 0), peers)
        assert peers == {}
        assert "broken is left out: computes something else" in capsys.readouterr().err


def test_a_vector_that_changes_nothing_is_refused(model: Model) -> None:
    work = Work.quick()
    inputs = steering._inputs(model, work, 0)
    inputs.vectors.zero_()
    with pytest.raises(AssertionError, match="changes nothing"):
        steering.check_steering(model, work, inputs, {})


def test_other_features_are_refused(model: Model) -> None:
    work = Work.quick()
    weights = random_weights(model, work)
    x = torch.randn(16, model.shape.d_model)
    right = SAE("standard", Weights(**weights))
    wrong = SAE("standard", Weights(**{**weights, "b_enc": weights["b_enc"] + 0.1}))
    assert check_features(right, weights, 4, x, {})
    with pytest.raises(AssertionError, match="ours finds other features"):
        check_features(wrong, weights, 4, x, {})
    assert plain(weights, x, 4)[0].shape == (16, 4)


def test_inputs_are_never_the_same_twice(model: Model) -> None:
    # What was asked before is answered from a cache, and that is not what the table is about.
    plan = Plan(model, Work.quick(), rounds=1, peers=False)
    first, second = (steering._inputs(plan.model, plan.work, 0) for _ in range(2))
    assert first.prompts != second.prompts
    assert not torch.equal(first.vectors, second.vectors)
    before = model.target.engine.work.cache_hits
    steering.queue_rows(plan)
    assert model.target.engine.work.cache_hits == before


def test_a_backend_that_is_not_there_is_said_and_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def found(plan: Plan) -> list[Row]:
        return [Row("docker: start", "ms", missing="no Docker daemon")]

    monkeypatch.setitem(GROUPS, "isolation", found)
    table = tmp_path / "table.md"
    assert main(["--quick", "--no-peers", "--only", "isolation", "--markdown", str(table)]) == 0
    assert "not measured: no Docker daemon" in capsys.readouterr().out
    assert "| docker: start |  | - | no Docker daemon | - |" in table.read_text()


def test_backends_that_do_not_work_here_have_such_a_row(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = {name: BackendStatus(name, available=False, reason="no daemon") for name in isolation.TARGETS}
    floor = BackendStatus(isolation.FLOOR, available=True)
    monkeypatch.setattr(isolation, "backends", lambda: {isolation.FLOOR: floor, **gone})
    rows = isolation.isolation_rows(Plan(model, Work.quick(), rounds=1))
    assert [(row.missing, row.error) for row in rows] == [("no daemon", "")] * len(gone)
