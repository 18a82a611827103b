"""The concepts page speaks of what there is."""

from __future__ import annotations

import re

from marple.tools.contract import discover_tools
from tests.docs.conftest import ROOT

PAGE = (ROOT / "docs" / "concepts.md").read_text()


def test_the_ladder_names_tools_on_their_rungs() -> None:
    tools = discover_tools()
    rows = re.findall(r"^\| ([1-4]) \|[^|]*\| (.*) \|$", PAGE, re.MULTILINE)
    assert [rung for rung, _ in rows] == ["1", "2", "3", "4"]
    for rung, named in rows:
        for name in re.findall(r"`(\w+)`", named):
            # Code does not run in the worker of the other tools.
            assert int(rung) == (4 if name == "python" else tools[name].rung), name


def test_every_word_of_the_trade_has_its_entry() -> None:
    words = re.findall(r"\*\*([\w ]+)\.?\*\*", PAGE)
    wanted = (
        "target, reference, model organism, twin, case, affordance, investigator, arm, call, claim, forecast, ladder"
    )
    for word in wanted.split(", "):
        assert any(word in found.lower() for found in words), word


def test_the_marks_are_those_of_claims_made_again() -> None:
    marks = re.search(r"\[marks\]\([^)]*\) the claim: (.*)\.$", PAGE, re.MULTILINE)
    assert marks
    table = (ROOT / "docs" / "tasks.md").read_text()
    for mark in re.findall(r"\*([\w -]+)\*", marks[1]):
        assert re.search(rf"^\| `?{mark}`? \|", table, re.MULTILINE), mark
