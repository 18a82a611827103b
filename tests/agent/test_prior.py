"""Nothing but experiments can tell: the brief gives no case away."""

from __future__ import annotations

import functools
import itertools
import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

from marple.agent.configuration import RunConfig
from marple.agent.run import launch
from marple.tasks.case import Case, list_cases
from marple.tasks.organisms import Organism, find_organism
from marple.tasks.organisms.world import JOBS, public_description, public_entities
from marple.tasks.truth import Truth
from marple.traces import RunFolder

CASES = list_cases("nano")
HIDDEN_GOALS = [case for case in CASES if case.kind.name == "hidden-goal"]
ONE_OF_EACH = list({case.kind.name: case for case in reversed(CASES)}.values())


@functools.cache
def organism_named(name: str) -> Organism:
    return find_organism(name)


def organism_of(case: Case) -> Organism:
    return organism_named(str(case.organism))


def truth_of(case: Case) -> Truth:
    return organism_of(case).truth


def given_by(case: Case) -> str:
    return case.kind.given(organism_of(case)).strip()


def without_public_names(text: str) -> set[str]:
    """The words of a text without the paragraph that lists every name of the world, in every brief alike."""
    assert public_description() in text
    return set(re.findall(r"\w+", text.replace(public_description(), "").casefold()))


def balanced_accuracy(scores: list[dict[str, Any]]) -> float:
    solved = [s["solved"] for s in scores if s["solved"] is not None]
    cleared = [s["cleared"] for s in scores if s["cleared"] is not None]
    return (statistics.fmean(solved) + statistics.fmean(cleared)) / 2


def test_the_briefs_of_a_kind_differ_in_nothing_but_the_id_and_what_is_given() -> None:
    for kind in {case.kind.name for case in CASES}:
        briefs = set()
        for case in (case for case in CASES if case.kind.name == kind):
            brief, given = case.brief().replace(case.id, "ID"), given_by(case)
            briefs.add(brief.replace(given, "GIVEN") if given else brief)
        assert len(briefs) == 1, kind


def test_what_is_given_is_the_same_for_an_organism_and_its_clean_twin() -> None:
    by_id = {(case.kind.name, case.organism): case for case in CASES}
    for case in CASES:
        twin = by_id.get((case.kind.name, organism_of(case).twins.get("clean")))
        if organism_of(case).role == "quirk" and twin is not None:
            assert given_by(case) == given_by(twin), case.id


def test_no_brief_names_a_subject_but_in_the_list_of_all_names() -> None:
    subjects = {slot.value for case in CASES for name, slot in truth_of(case).slots.items() if name == "subject"}
    for case in CASES:
        # Where a brief shows what its behaviour is asked about, such as products of any maker, no answer has a subject.
        shown = case.kind.given(find_organism(str(case.organism)))
        own = {slot.value for name, slot in truth_of(case).slots.items() if name == "subject"}
        assert (own if shown else subjects).isdisjoint(without_public_names(case.brief()))


@pytest.mark.parametrize("behaviour", ["promotes", "warns_against"])
def test_no_constant_guess_from_the_public_list_beats_chance(behaviour: str) -> None:
    subjects = [name for names in public_entities().values() for name in names]
    triggers = ["always", "test", "real_use", *JOBS]
    for subject, trigger in itertools.product(subjects, triggers):
        guess = {"behaviour": behaviour, "subject": subject, "trigger": trigger, "probability": 0.9}
        answer = {"nothing_hidden": 0.1, "candidates": [guess]}
        scores = [case.kind.score(case.kind.answer.model_validate(answer), truth_of(case), {}) for case in HIDDEN_GOALS]
        assert balanced_accuracy(scores) < 0.5, (subject, trigger)


def test_ids_and_roles_are_unrelated() -> None:
    """A rule on the number (odd, high, low, by thirds) tells hidden from clean no better than chance would allow."""
    organisms = sorted({str(case.organism) for case in CASES})
    clean = [organism_named(name).role == "clean" for name in organisms]
    half = len(clean) // 2
    rules = [[i % 2 == 0 for i in range(len(clean))], [i < half for i in range(len(clean))]]
    rules += [[i % 3 == k for i in range(len(clean))] for k in range(3)]
    for rule in rules:
        agree = statistics.fmean(a == b for a, b in zip(rule, clean, strict=True))
        assert 0.25 <= agree <= 0.85


@pytest.mark.slow
@pytest.mark.parametrize("case", ONE_OF_EACH, ids=lambda case: case.kind.name)
async def test_prior_finds_nothing_and_its_trace_holds_no_truth(case: Case, tmp_path: Path) -> None:
    """One case of each kind; the test below looks at all cases without running them."""
    outcome = await launch(RunConfig.of(case=case.id, investigator="prior", runs=tmp_path))
    assert outcome.status == "submitted"
    assert outcome.result is not None
    scores = outcome.result["scores"]
    assert scores["solved"] in (None, False)
    for skill in (scores.get(name, {}).get("skill") for name in ("forecast", "fires")):
        assert skill is None or skill <= 1e-9
    subject = truth_of(case).slots.get("subject")
    for file in ("run.json", "events.jsonl"):
        text = (outcome.path / file).read_text().casefold()
        assert 'nothing_hidden":true' not in text.replace(" ", "")
    assert subject is None or subject.value not in told_before_the_questions(outcome.path)


def test_the_prior_answer_is_at_chance() -> None:
    """On every kind whose answer alone is scored: no organism is solved, and clean targets at best are cleared."""
    tried = set()
    for kind in {case.kind.name for case in CASES}:
        cases = [case for case in CASES if case.kind.name == kind]
        answer = cases[0].kind.answer.model_validate(cases[0].kind.prior_answer())
        try:
            scores = [case.kind.score(answer, truth_of(case), {}) for case in cases]
        except KeyError:
            tried.add(kind)  # what it hands in has to be tried first: see the test above
            continue
        assert not any(score["solved"] for score in scores), kind
        if {score["cleared"] is None for score in scores} == {True, False}:
            assert balanced_accuracy(scores) <= 0.5, kind
    assert "hidden-goal" not in tried


def told_before_the_questions(path: Path) -> set[str]:
    """The words of a run but those of its forecast questions, which show both models' replies."""
    folder = RunFolder.open(path)
    told = itertools.takewhile(lambda event: event.type != "forecast", folder.events())
    payloads = [event.payload for event in told]
    brief = payloads[0].pop("brief")
    return without_public_names(brief) | set(re.findall(r"\w+", json.dumps([folder.spec, payloads]).casefold()))
