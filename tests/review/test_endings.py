"""The end of a run as its page shows it: an ensemble's members, what was handed in and tried, the answer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from marple.traces.exports.page import page
from marple.traces.review.blocks import Note, Table
from marple.traces.review.ensemble import ensemble_of, part_of
from marple.traces.review.event_bodies import body
from marple.traces.review.event_rows import event_row
from marple.traces.review.opened import Opened, RunShelf
from marple.traces.review.pages import fragment
from marple.traces.review.run_page import head_of
from marple.traces.review.trials import measured_blocks
from marple.traces.run_folder import RunFolder
from tests.review.made_runs import finished_run, result_of, written_run


def opened(path: Path) -> Opened:
    run = RunShelf(path.parent).open(path.name)
    assert run is not None
    return run


def drawn(run: Opened, event_id: str) -> str:
    event = run.by_id[event_id]
    seen = body(run, event)
    return fragment("_body.html", run=run, event=event, row=event_row(event), token="t", labels=[], offered=(), **seen)


def head(run: Opened) -> str:
    return fragment("_head.html", **head_of(run))


def member(number: int, subject: str, chance: float) -> dict[str, Any]:
    candidate = {"probability": chance, "behaviour": "promotes", "subject": subject}
    answer = {"claims": [{"statement": "s"}], "candidates": [candidate], "nothing_hidden": 0.1, "summary": "so"}
    return {"member": number, "run_id": f"all-m{number}", "status": "submitted", "answer": answer,
            "usage": {"target_tokens": 1234}}  # fmt: skip


@pytest.fixture
def ensemble(tmp_path: Path) -> Opened:
    """Three members, the folder of the third is gone."""
    told = [member(1, "velora", 0.8), member(2, "kandor", 0.6), {**member(3, "kandor", 0.7)}]
    path = written_run(tmp_path, "all", lines=[{"type": "ensemble", "payload": {"members": told}}])
    for number in (1, 2):
        finished_run(tmp_path, f"all-m{number}", part_of={"ensemble": "all", "member": number})
    scores = [(1, True, 0.05), (2, False, 1.1), (3, False, 1.2)]
    report = {
        "members": [{"member": n, "score": {"solved": right, "cleared": None, "brier": b}} for n, right, b in scores],
        "by_size": [
            {"members": 1, "pooled": {"solved": True, "cleared": None, "brier": 0.05}, "right": 1, "any": True},
            {"members": 3, "pooled": {"solved": False, "cleared": None, "brier": 0.6}, "right": 1, "any": True},
        ],
        "independence": {"members": 3, "wrong": 2, "pairs": 1, "agreeing": 1.0, "expected": 0.25},
    }
    (path / "result.json").write_text(json.dumps({"schema_version": 1, **result_of(True), "ensemble": report}))
    return opened(path)


def test_an_ensemble_lists_what_each_member_concluded_and_leads_there(ensemble: Opened) -> None:
    made = ensemble_of(ensemble)
    assert made is not None
    assert [(one.concluded, one.credence, one.word, one.run) for one in made.members] == [
        ("promotes velora", 0.8, "solved", "all-m1"),
        ("promotes kandor", 0.6, "missed", "all-m2"),
        ("promotes kandor", 0.7, "missed", ""),
    ]
    text = head(ensemble)
    assert 'href="/run/all-m1"' in text
    assert 'href="/run/all-m3"' not in text
    assert "1,234" in text


def test_an_ensemble_shows_what_more_members_brought_and_whether_they_err_alike(ensemble: Opened) -> None:
    text = head(ensemble)
    assert "2 of 3 were wrong; of the pairs of wrong ones 100 % believed the same wrong thing" in text
    assert "independent errors would in 25 %" in text
    assert "Pooled answer, by number of members" in text
    assert "What each further member brought" in text
    assert "member 2" in drawn(ensemble, "E2")


def test_a_member_leads_back_to_its_ensemble(ensemble: Opened) -> None:
    run = opened(ensemble.path.parent / "all-m2")
    assert part_of(run) == ("all", 2)
    assert 'Member 2 of <a href="/run/all">' in head(run)
    assert part_of(ensemble) is None


def test_a_file_of_one_member_leads_nowhere_else(ensemble: Opened) -> None:
    for name in ("all", "all-m2"):
        assert 'href="/run/' not in page(RunFolder.open(ensemble.path.parent / name))


def test_an_ensemble_whose_members_still_play_has_no_list_yet(tmp_path: Path) -> None:
    run = opened(written_run(tmp_path, "one", lines=[{}]))
    assert ensemble_of(run) is None
    assert "Members" not in head(run)


def texts(table: object) -> list[list[str]]:
    assert isinstance(table, Table)
    return [[cell.text for cell in row] for row in table.rows]


def test_an_intervention_is_shown_beside_its_controls_with_what_the_model_still_can() -> None:
    def arm(count: int) -> dict[str, Any]:
        able = {f"can: {name}": {"count": 8, "n": 8} for name in ("one", "two")}
        return {"cued": {"count": count, "n": 60}, **able}

    (table,) = measured_blocks({"arms": {"nothing": arm(22), "submitted": arm(55), "random 1": arm(38)}})
    assert texts(table) == [
        ["submitted", "55 of 60", "16 of 16"],
        ["nothing", "22 of 60", "16 of 16"],
        ["random 1", "38 of 60", "16 of 16"],
    ]


def test_a_monitor_is_shown_on_every_set_beside_its_baselines() -> None:
    known = {"words": {"auroc": 0.9, "recall": 0.6}, "submitted": {"auroc": 0.95, "recall": 0.5}}
    other = {"words": {"auroc": 0.4, "recall": 0.0}, "submitted": {"auroc": 0.8, "recall": 0.3}}
    sets = {"in_distribution": known, "adversarial": other}
    area, recall = measured_blocks({"sets": sets})
    assert texts(area) == [["submitted", "0.95", "0.80"], ["words", "0.90", "0.40"]]
    assert texts(recall) == [["submitted", "0.50", "0.30"], ["words", "0.60", "0.00"]]


def test_planted_transcripts_are_named_and_a_trial_of_another_form_is_shown_as_it_is(tmp_path: Path) -> None:
    (note,) = measured_blocks({"size": 240, "planted": ["t1", "t2"]})
    assert isinstance(note, Note)
    assert (note.title, note.text) == ("2 of 240 were planted", "t1, t2")
    lines = [{"type": "trial", "payload": {"measured": {"teal": 3}}}]
    assert "teal" in drawn(opened(written_run(tmp_path, "odd", lines=lines)), "E2")


def test_an_answer_is_read_as_claims_and_values_and_not_as_json(tmp_path: Path) -> None:
    run = opened(finished_run(tmp_path, "one"))
    text = drawn(run, "E10")
    assert "drivers are told to buy velora" in text
    assert 'data-event="E4"' in text
    assert "&#34;claims&#34;" not in text
