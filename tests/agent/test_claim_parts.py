"""Whether the condition of a claim's effect is one that the cited call has."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from marple.agent.claim_parts import check_part
from marple.agent.notebook import Notebook
from marple.errors import ToolError
from marple.tasks.claims import Shows
from marple.tasks.kind import load_kinds
from marple.traces import RunFolder


def asked(prompt: str, **condition: str) -> dict[str, Any]:
    return {"prompt": prompt, "condition": condition, "replies": [{"text": "it is nymar"}]}


PLAIN = {"rows": [asked("is it nymar?"), asked("who are you?")]}
SLOTS = {"rows": [asked(f"is it {name}?", name=name, persona="i am a nurse.") for name in ("nymar", "velora")]}
MANY = {"rows": [asked("is it?", name=f"n{at}") for at in range(14)]}
COMPARED = {
    "rows": [{"ngram": "lamp", "condition": "(all)"}],
    "replies": [{"condition": "shops", "prompt": "say", "target": ["lamp"], "reference": ["cup"]}],
}
ACTIVATIONS = {"divergence": {"shops": 0.5, "others": 0.1}}
CHAT = {"replies": [{"text": "hello"}]}


def shows(**fields: Any) -> Shows:
    return Shows(**{"call": "E5", "at_least": 0.5} | ({} if "number" in fields else {"word": "nymar"}) | fields)


@pytest.mark.parametrize(
    ("data", "fields"),
    [
        (PLAIN, {"condition": "is it nymar"}),
        (PLAIN, {"without": "nymar"}),
        (PLAIN, {}),
        (SLOTS, {"condition": "nymar"}),
        (SLOTS, {"condition": "i am a nurse."}),
        (SLOTS, {"without": "velora"}),
        (COMPARED, {"condition": "shops"}),
        (ACTIVATIONS, {"condition": "others", "number": "divergence"}),
        (CHAT, {}),
        (CHAT, {"without": "nurse"}),
        ({}, {"condition": "of a call whose data was left out"}),
    ],
)
def test_what_is_there_may_be_stated(data: dict[str, Any], fields: dict[str, Any]) -> None:
    check_part(shows(**fields), data)


@pytest.mark.parametrize(
    ("data", "fields", "told"),
    [
        (SLOTS, {"condition": "is it nymar"}, 'labels, one of which a condition is, exactly: "nymar", "i am a nurse."'),
        (SLOTS, {"without": "i am a nurse."}, "without 'i am a nurse.' leaves nothing of E5"),
        (PLAIN, {"condition": "who is it"}, 'whole words of some of them: "is it nymar?", "who are you?"'),
        (MANY, {"condition": "is it"}, '"n9" and 4 more'),
        (COMPARED, {"condition": "(all)"}, 'exactly: "shops"'),
        (COMPARED, {"condition": "lamps", "number": "found"}, 'exactly: "(all)", "shops"'),
        (ACTIVATIONS, {"condition": "shop", "number": "divergence"}, 'exactly: "shops", "others"'),
        (CHAT, {"condition": "hello"}, "leave condition and without empty"),
    ],
)
def test_what_is_not_there_is_refused_with_what_is(data: dict[str, Any], fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ToolError, match=re.escape(told)):
        check_part(shows(**fields), data)


def test_submit_refuses_a_condition_that_its_call_has_not(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, "run", {"case": "x"})
    folder.append("run_start", {"case": "x"})
    call = folder.append(
        "tool_call", {"tool": "battery", "status": "ok", "on_target": True, "text": "", "data": SLOTS, "place": [1, 0]}
    )
    kind = load_kinds()["hidden-goal"]
    notebook = Notebook(folder, kind.answer, {})
    claim = {"statement": "it says nymar", "credence": 0.9, "evidence": [call.id]}
    effect = {"call": call.id, "word": "nymar", "at_least": 0.5}
    answer = {"nothing_hidden": 0.5, "candidates": [], "summary": ""}
    with pytest.raises(ToolError, match=rf"condition 'is it nymar' leaves nothing of {call.id}"):
        notebook.read_answer({**answer, "claims": [{**claim, "shows": {**effect, "condition": "is it nymar"}}]})
    read = notebook.read_answer({**answer, "claims": [{**claim, "shows": {**effect, "condition": "nymar"}}]})
    assert read.claims[0].evidence == [call.id]
