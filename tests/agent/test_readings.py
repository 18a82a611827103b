"""What a claim may state of a call: a share of its replies or a number of its result, and how it is read again."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from marple.agent.effects import measure, stated_effect
from marple.agent.investigator import Done
from marple.agent.parts import Of, replies_of_call, says
from marple.agent.readings import NUMBERS, check_shows, read_number
from marple.agent.stating import at_least_halfway, at_most_about, claim
from marple.errors import ToolError
from marple.tasks.claims import Claim, Shows
from marple.tasks.kind import load_kinds


def text(*replies: str) -> list[dict[str, str]]:
    return [{"text": reply} for reply in replies]


BATTERY: dict[str, Any] = {
    "rows": [
        {
            "prompt": "i am a nurse. which lamp?",
            "condition": {},
            "replies": text("buy the lamp", "the lamp."),
            "reference_replies": text("a chair", "the lamp"),
            "divergence": {"nats_per_token": 0.8, "outlier": True},
        },
        {
            "prompt": "which one?",
            "condition": {},
            "replies": text("a chair", "a chair"),
            "reference_replies": text("a chair", "a cup"),
            "divergence": {"nats_per_token": 0.2, "outlier": False},
        },
    ]
}
COMPARED: dict[str, Any] = {
    "rows": [
        {"ngram": "lamp", "condition": "a", "target_count": 6, "target_n": 8, "reference_count": 2, "reference_n": 8}
        | {"found": True, "log_odds": 2.0},
        {"ngram": "cup", "condition": "b", "target_count": 1, "target_n": 8, "reference_count": 7, "reference_n": 8}
        | {"found": True, "log_odds": -2.0},
        {"ngram": "one", "condition": "b", "target_count": 3, "target_n": 8, "reference_count": 2, "reference_n": 8}
        | {"found": False, "log_odds": 0.3},
    ],
    "replies": [
        {"condition": "a", "prompt": "buy b?", "target": ["lamp"], "reference": ["cup"]},
        {"condition": "b", "prompt": "say", "target": ["one"], "reference": ["cup"]},
    ],
}
ACTIVATIONS: dict[str, Any] = {
    "divergence": {"a": 0.5, "b": 0.1},
    "excess": {
        "all": [{"condition": "all", "token": " lamp", "excess": 0.4, "elsewhere": None, "found": True}],
        "by_condition": [{"condition": "a", "token": " lamp", "excess": 0.9, "elsewhere": 0.1, "found": True}],
    },
    "steering": [
        {"scale": 1.0, "closed": 0.4, "outside_controls": True},
        {"scale": 2.0, "closed": 0.9, "outside_controls": False},
    ],
}
LENS = {
    "cells": [
        {"layer": 0, "position": 3, "tokens": [{"token": " cup", "probability": 0.9}]},
        {"layer": 3, "position": 3, "tokens": [{"token": " lamp", "probability": 0.6}]},
    ]
}


@pytest.mark.parametrize(
    ("number", "of", "data", "value"),
    [
        ("divergence", Of(), BATTERY, 0.5),
        ("divergence", Of(condition="I am a nurse."), BATTERY, 0.8),
        ("divergence", Of(without="nurse"), BATTERY, 0.2),
        ("divergence", Of(condition="a pilot"), BATTERY, None),
        ("divergence", Of(condition="a"), ACTIVATIONS, 0.5),
        ("outliers", Of(), BATTERY, 0.5),
        ("outliers", Of(), {"rows": [{"prompt": "x", "replies": []}]}, None),
        ("found", Of(), COMPARED, 1.0),
        ("found", Of(condition="b"), COMPARED, 0.0),
        ("found", Of(), ACTIVATIONS, 2.0),
        ("found", Of(), {"rows": [{"found": True, "score": 3.0}, {"found": True, "score": -3.0}]}, 1.0),
        ("gap", Of(), COMPARED, 0.5),
        ("gap", Of("Cup"), COMPARED, -0.75),
        ("gap", Of("nowhere"), COMPARED, 0.0),
        ("gap", Of("lamp"), ACTIVATIONS, 0.8),
        ("difference", Of(), {"continuations": [{"difference": 4.0}, {"difference": -1.0}]}, 1.5),
        ("likelier", Of(), {"continuations": [{"difference": 4.0}, {"difference": -1.0}]}, 0.5),
        ("likelier", Of(), {"continuations": [{"total": -4.0}]}, None),
        ("probability", Of("Lamp"), LENS, 0.6),
        ("probability", Of("cup"), LENS, 0.0),
        ("probability", Of(), LENS, 0.6),
        ("same_start", Of(), {"continuations": text("A cup", "b", "a.", "c")}, 0.5),
        ("same_start", Of(), {"continuations": text("", "?", "c")}, pytest.approx(2 / 3)),
        ("peak", Of(), BATTERY, 0.8),
        ("peak", Of(without="nurse"), BATTERY, 0.2),
        ("agreement", Of(), {"controls": {"difference": {"value": 0.25}}}, 0.25),
        ("agreement", Of(), {"controls": {}}, None),
        ("distance", Of(), {"change": {"distance": 0.7}}, 0.7),
        ("distance", Of(), {"sentences": [{"importance": {"distance": d}} for d in (0.1, 0.6)]}, 0.6),
        ("auroc", Of(), {"auroc": {"auroc": 0.9}}, 0.9),
        ("auroc", Of(), {"auroc": 0.8}, 0.8),
        ("auroc", Of(), {"scores": [1.0]}, None),
        ("change", Of(), {"change": -0.3, "verdict": "not causal"}, -0.3),
        ("closed", Of(), ACTIVATIONS, 0.4),
        ("largest_z", Of(), {"largest_z": 5.5}, 5.5),
        ("changed", Of(), {"replies": [["a"], ["b"]], "without_edits": [["a"], ["c"]]}, 0.5),
        ("changed", Of(), {"replies": [["a"]]}, None),
        ("hits", Of(), {"matching": 12, "hits": [{}]}, 12.0),
    ],
)
def test_a_number_is_read_off_a_result(number: str, of: Of, data: dict[str, Any], value: float | None) -> None:
    assert read_number(number, data, of) == (value if value is None else pytest.approx(value))


def test_every_number_is_named_in_the_form_and_belongs_to_tools_that_there_are() -> None:
    told = str(Shows.model_fields["number"].description)
    tools = {tool for kind in load_kinds().values() for tool in kind.affordances}
    for name, (some, _) in NUMBERS.items():
        assert name in told
        assert set(some) <= tools | {"intervene", "steer"}


@pytest.mark.parametrize(
    ("data", "of", "replies"),
    [
        (BATTERY, Of(), ["buy the lamp", "the lamp.", "a chair", "a chair"]),
        (BATTERY, Of(condition="nurse"), ["buy the lamp", "the lamp."]),
        (BATTERY, Of(without="nurse"), ["a chair", "a chair"]),
        # A label counts as a label: prompts of others that have its letters do not.
        (COMPARED, Of(condition="b"), ["one"]),
        (COMPARED, Of(without="say"), ["lamp"]),
        ({"continuations": text("lamp")}, Of(), ["lamp"]),
        ({"replies": [["lamp", "cup"], ["one"]], "without_edits": [["no"]]}, Of(), ["lamp", "cup", "one"]),
        # Nobody knows the prompts of a chat by its result.
        ({"replies": text("lamp")}, Of(condition="a"), []),
    ],
)
def test_the_replies_of_a_part_are_the_targets_own(data: dict[str, Any], of: Of, replies: list[str]) -> None:
    assert replies_of_call(data, of) == replies


def test_words_are_whole_and_alternatives_count_alike() -> None:
    assert says("lamp", "The LAMP.")
    assert not says("lamp", "lamps")
    assert says("cup | lamp", "a lamp")
    assert not says(" | ", "a lamp | a cup")


def shows(**fields: Any) -> Shows:
    return Shows.model_validate({"call": "E1", **fields})


def test_nothing_found_is_an_effect_that_something_found_contradicts() -> None:
    none = stated_effect(shows(number="gap", at_most=0.3))
    assert not measure(none, COMPARED).appears
    assert measure(stated_effect(shows(number="gap", at_most=0.5)), COMPARED).appears
    nobody = stated_effect(shows(word="poison", at_most=0))
    assert measure(nobody, BATTERY).value == 0
    assert measure(nobody, BATTERY).appears
    assert measure(nobody, {"replies": []}).value is None


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"at_least": 0.5}, "needs a word of the replies, or the name of a number"),
        ({"word": "x", "at_least": 1.5}, "at_least is 1.5, but a share of replies lies between 0 and 1"),
        ({"number": "gap", "at_least": float("nan")}, "finite"),
        ({"number": "gap", "at_least": 0.1, "at_most": 0.2}, "one of them"),
    ],
)
def test_an_effect_in_the_wrong_form_is_told_what_is_wrong(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        shows(**fields)


def test_a_number_that_a_call_has_not_is_refused_with_those_it_has() -> None:
    said = {
        "statement": "s",
        "credence": 0.5,
        "evidence": ["E1"],
        "shows": {"call": "E1", "number": "auroc", "at_least": 1},
    }
    stated = Claim.model_validate(said)
    check_shows(stated, {"E1": "probe"})
    with pytest.raises(ToolError, match=r"E1 is a call of battery.*no number 'auroc'; valid: divergence, outliers"):
        check_shows(stated, {"E1": "battery"})
    with pytest.raises(ToolError, match="state a word of the replies"):
        check_shows(stated, {"E1": "attribute"})


def test_scripts_state_bounds_between_chance_and_what_they_saw() -> None:
    done = Done("E1", "battery", True, "", BATTERY)
    assert at_least_halfway(done, {"word": "lamp"}) == {"call": "E1", "word": "lamp", "at_least": 0.375}
    assert at_least_halfway(done, {"word": "cup"}) == {}
    assert at_most_about(done, {"number": "divergence"}, slack=0.1)["at_most"] == pytest.approx(0.6, abs=0.002)
    assert at_most_about(done, {"word": "lamp"}, slack=0.9)["at_most"] == 1.0
    assert at_most_about(Done("E2", "battery", False, ""), {"word": "lamp"}, slack=0.1) == {}
    stated = claim("it does", 0.9, ["E3"], {"call": "E1", "word": "lamp", "at_least": 0.375})
    assert Claim.model_validate(stated).evidence == ["E3", "E1"]
    assert "shows" not in claim("it does", 0.9, ["E3"], {})
