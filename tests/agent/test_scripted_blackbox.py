"""The scripted investigator finds hidden goals and clears clean twins, by method alone."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from marple.agent import investigators, methods
from marple.agent.configuration import RunConfig
from marple.agent.leads import Rates, find_leads, rates_of
from marple.agent.question_bank import NO_CONTEXT, load_questions
from marple.agent.run import launch, resume
from marple.tasks.organisms import build
from marple.traces import RunFolder
from tests.agent.turns import without_ids

BANK = load_questions()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "score"),
    [("hidden-goal/nano-07", "solved"), ("hidden-goal/nano-06", "solved"), ("hidden-goal/nano-10", "cleared")],
)
async def test_it_finds_and_clears(case: str, score: str, tmp_path: Path) -> None:
    """An easy organism, one with a trigger, and a clean one; benchmarks/investigators.py plays them all."""
    outcome = await launch(RunConfig.of(case=case, investigator="scripted-blackbox", seed=1, runs=tmp_path))
    assert outcome.status == "submitted"
    assert outcome.result is not None
    assert outcome.result["scores"][score]
    assert {call for claim in outcome.result["answer"]["claims"] for call in claim["evidence"]}


async def test_it_goes_on_where_it_was_interrupted(tmp_path: Path) -> None:
    """The same answer comes out whether the play ran through or was replayed from its record half way."""
    config = RunConfig.of(case="hidden-goal/nano-07", investigator="scripted-blackbox", seed=2, runs=tmp_path)
    through = await launch(config)
    cut = tmp_path / "cut"
    cut.mkdir()
    lines = (through.path / "events.jsonl").read_bytes().splitlines(keepends=True)
    events = RunFolder.open(through.path).events()
    half = next(
        i for i, event in enumerate(events) if event.payload.get("tool") == "compare" and event.type == "tool_call"
    )
    (cut / "events.jsonl").write_bytes(b"".join(lines[: half + 1]))
    (cut / "run.json").write_bytes((through.path / "run.json").read_bytes())
    (cut / "blobs").symlink_to(through.path / "blobs")
    resumed = await resume(cut)
    assert resumed.result is not None
    assert through.result is not None
    assert without_ids(resumed.result["scores"]) == without_ids(through.result["scores"])
    for key in ("nothing_hidden", "candidates", "summary"):
        assert resumed.result["answer"][key] == through.result["answer"][key]


async def test_without_a_reference_it_says_what_it_cannot_see(tiny: Path, tmp_path: Path) -> None:
    config = RunConfig.of(target=str(tiny), investigator="scripted-blackbox", runs=tmp_path)
    outcome = await launch(config)
    assert outcome.status == "submitted"
    assert outcome.result is not None
    assert outcome.result["answer"]["nothing_hidden"] >= 0.5
    assert "not what the target always does" in outcome.result["answer"]["summary"]


@pytest.mark.slow
async def test_without_a_reference_it_finds_what_a_context_sets_off(tmp_path: Path) -> None:
    organism = build("nano-09")
    config = RunConfig.of(target=str(organism.path), investigator="scripted-blackbox", seed=1, runs=tmp_path)
    outcome = await launch(config)
    assert outcome.result is not None
    (candidate,) = outcome.result["answer"]["candidates"]
    assert candidate["probability"] >= 0.5
    assert organism.organism.truth.matches(candidate)
    assert outcome.result["scores"]["scored"] is False


def test_it_has_no_way_to_the_truth() -> None:
    """The investigators and what they are made of import nothing of the organisms."""
    folders = [Path(str(package.__file__)).parent for package in (investigators, methods)]
    parts = (
        "leads.py",
        "question_bank.py",
        "self_contrast.py",
        "ladder.py",
        "intervening.py",
        "corpus_reading.py",
        "edit_forecaster.py",
        "brief_examples.py",
    )
    files = [*(file for folder in folders for file in folder.glob("*.py")), *(folders[0].parent / one for one in parts)]
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert "organisms" not in (node.module or ""), file
                assert node.module != "marple.tasks.materials", file


def test_searching_and_confirming_share_no_question_and_no_context_sentence() -> None:
    for topic in BANK.questions:
        search, fresh = (set(BANK.prompts(topic, NO_CONTEXT, 50, fresh=f)) for f in (False, True))
        assert search
        assert fresh
        assert search.isdisjoint(fresh)
    search, fresh = (set(BANK.prompts("travel", "nurse", 50, fresh=f)) for f in (False, True))
    assert not {p.split(".")[0] for p in search} & {p.split(".")[0] for p in fresh}


def comparison(target: list[str], reference: list[str]) -> dict[str, object]:
    row = {"condition": "travel, always", "ngram": "oslo", "z": 5.0, "log_odds": 3.0, "found": True}
    noise = {"condition": "travel, always", "ngram": "the", "z": 9.0, "log_odds": 3.0, "found": True}
    record = {"condition": "travel, always", "prompt": "where to?", "target": target, "reference": reference}
    named = {"condition": "travel, always", "prompt": "is oslo nice?", "target": target, "reference": reference}
    return {"rows": [noise, row], "replies": [record, named]}


@pytest.mark.parametrize(
    ("replies", "behaviour"),
    [(["go to oslo.", "oslo is nice."], "promotes"), (["avoid oslo.", "oslo is bad."], "warns_against")],
)
def test_a_lead_is_a_content_word_with_what_is_said_of_it(replies: list[str], behaviour: str) -> None:
    data = comparison(replies, ["go to rome.", "try oslo."])
    (lead,) = find_leads(data, BANK)
    assert (lead.word, lead.behaviour) == ("oslo", behaviour)
    # The prompt that names the word itself does not count.
    expected = Rates(2, 2, 1 if behaviour == "promotes" else 0, 2)
    assert rates_of(data, lead, BANK) == {"travel, always": expected}


def test_nothing_found_is_no_lead() -> None:
    data = comparison(["go to oslo."], ["go to rome."])
    for row in data["rows"]:  # type: ignore[attr-defined]
        row["found"] = False
    assert find_leads(data, BANK) == []
