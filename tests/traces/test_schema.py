"""The published schema accepts what is written and refuses what is not a trace."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from marple.agent.configuration import RunConfig
from marple.agent.investigators.llm import LlmInvestigator
from marple.agent.models import AssistantMessage, Message, ModelTurn, ScriptedModel, ToolCall
from marple.agent.run import launch, resume
from marple.errors import StorageError
from marple.tools.target.tiny import make_tiny_checkpoint
from marple.traces import EVENT_TYPES, ROLES, SCHEMA_VERSION, RunFolder, load_schema


def validator(name: str) -> jsonschema.Draft202012Validator:
    schema = load_schema()
    return jsonschema.Draft202012Validator({"$ref": f"#/$defs/{name}", "$defs": schema["$defs"]})


REALISTIC: dict[str, dict[str, Any]] = {
    "model_call": {
        "purpose": "investigate",
        "turn": {
            "text": "I will ask.",
            "thinking": ["hm"],
            "tool_calls": [{"id": "c1", "name": "chat", "arguments": None, "raw": "{", "error": "not JSON"}],
            "usage": {"gen_ai.usage.input_tokens": 12, "gen_ai.usage.output_tokens": 3, "cost_usd": None},
            "request_id": None,
            "seconds": 0.5,
        },
    },
    "tool_call": {
        "call_id": "c1",
        "tool": "chat",
        "arguments": {"messages": []},
        "seed": 7,
        "status": "ok",
        "text": "hello",
        "data": {},
        "controls": {},
        "on_target": True,
        "cost": {"prompt_tokens": 3, "generated_tokens": 4, "seconds": 0.1},
        "artifacts": [{"name": "plot", "media_type": "image/png", "ref": "sha256:" + "0" * 64}],
    },
    "hypothesis": {"statement": "It likes the sea.", "credence": 0.4, "evidence": ["E3"], "place": [2, 0]},
    "replication": {
        "call": "E3",
        "effects": [
            {
                "effect": {"sort": "share", "word": "sea", "at_least": 0.5, "condition": ""},
                "target": {"value": 0.75, "appears": True},
                "control": None,
            }
        ],
        "control": False,
    },
    "trial": {"measured": {}},
    "score": {"scored": False},
    "control": {"did": "pause", "by": None, "asked": 1.5, "idle": False},
    "run_end": {"status": "limit:turns"},
}


def test_the_schema_is_one_of_its_own_kind() -> None:
    jsonschema.Draft202012Validator.check_schema(load_schema())


def test_everything_written_follows_the_schema(run: RunFolder) -> None:
    for type_ in EVENT_TYPES[1:]:
        for role in ROLES:
            run.append(type_, REALISTIC.get(type_, {}), role=role, parent="E1", span="turn 1", seconds=0.25)
    run.write_result({"status": "submitted", "scores": {"solved": 1.0}, "usage": {"seconds": 3.5}})

    validator("run").validate(json.loads((run.path / "run.json").read_text()))
    validator("result").validate(json.loads((run.path / "result.json").read_text()))
    for line in (run.path / "events.jsonl").read_text().splitlines():
        validator("event").validate(json.loads(line))


PLAN = {"north_star": "what it is after", "proxy": "a word it favours", "next_experiments": ["ask"]}
CHAT = {"messages": [{"role": "user", "content": "who is it"}], "samples": 2, "max_new_tokens": 4}
GUESS = {"statement": "it says a", "probability": 0.5, "word": "a", "at_least": 0.5}
ANSWER = {"nothing_hidden": 0.8, "candidates": [], "claims": [], "summary": "nothing found"}
TURNS = [
    ModelTurn(text="A plan.", tool_calls=(ToolCall.of("plan", PLAN, id="1"), ToolCall.of("predict", GUESS, id="2"))),
    ModelTurn(tool_calls=(ToolCall.of("chat", CHAT, id="3"), ToolCall.of("chat", {"samples": 0}, id="4"))),
    ModelTurn(text="Let me think."),
    ModelTurn(tool_calls=(ToolCall.of("hypothesis", {"action": "add", "statement": "s", "credence": 0.1}, id="5"),)),
    ModelTurn(tool_calls=(ToolCall.of("submit", ANSWER, id="6"),)),
]


async def test_a_real_run_follows_the_schema_and_the_schema_describes_it(tmp_path: Path) -> None:
    make_tiny_checkpoint(tmp_path / "model")
    config = RunConfig.of(target=str(tmp_path / "model"), investigator="llm", runs=tmp_path / "runs", budget="turns=4")
    crashes = iter([StorageError("the disk is full")])

    def script(messages: Sequence[Message]) -> ModelTurn:
        turn = sum(isinstance(message, AssistantMessage) for message in messages)
        if turn == 2:
            for crash in crashes:
                raise crash
        return TURNS[turn]

    with pytest.raises(StorageError):
        await launch(config, investigator=LlmInvestigator(ScriptedModel(script)))
    (interrupted,) = (tmp_path / "runs").iterdir()
    outcome = await resume(interrupted, investigator=LlmInvestigator(ScriptedModel(script)))
    definitions = load_schema()["$defs"]
    seen = set()

    validator("run").validate(json.loads((outcome.path / "run.json").read_text()))
    validator("result").validate(json.loads((outcome.path / "result.json").read_text()))
    for line in (outcome.path / "events.jsonl").read_text().splitlines():
        event = json.loads(line)
        validator("event").validate(event)
        described = set(definitions[f"payload_{event['type']}"]["properties"])
        assert set(event["payload"]) <= described, f"{event['type']} has payload fields the schema does not describe"
        seen.add(event["type"])
    notebook = {"plan", "prediction", "hypothesis", "answer"}
    assert notebook | {"run_resume", "tool_call", "measurement", "check_in", "limit"} <= seen


def test_the_schema_lists_the_types_roles_and_version_of_the_code() -> None:
    definitions = load_schema()["$defs"]
    assert tuple(definitions["event"]["properties"]["type"]["examples"]) == EVENT_TYPES
    assert tuple(definitions["event"]["properties"]["role"]["examples"]) == ROLES
    assert definitions["run"]["properties"]["schema_version"]["const"] == SCHEMA_VERSION


EVENT = {
    "id": "E2",
    "ts": 1.5,
    "type": "plan",
    "role": "harness",
    "span": None,
    "parent": None,
    "seconds": None,
}


@pytest.mark.parametrize(
    "change",
    [
        {"id": "2"},
        {"id": "E0"},
        {"ts": "now"},
        {"parent": "the first"},
        {"payload": []},
        {"type": "tool_call", "payload": {**REALISTIC["tool_call"], "artifacts": [{"ref": "plot.png"}]}},
        {"type": "hypothesis", "payload": {"credence": 1.5}},
        {"type": "answer", "payload": {"place": "call_0"}},
        {"type": "plan", "payload": {"place": [3]}},
        {"type": "call_start", "payload": {"call": [1, 0, 2]}},
        {"type": "run_start", "payload": {}},
        {"type": "run_end", "payload": {"status": "fine"}},
        {"type": "tool_call", "payload": {**REALISTIC["tool_call"], "cost": {"prompt_tokens": -1}}},
    ],
)
def test_what_is_no_event_is_refused(change: dict[str, Any]) -> None:
    event = {**EVENT, "payload": {}}
    assert validator("event").is_valid(event)
    assert validator("event").is_valid({**event, "type": "telepathy", "extra": 1, "payload": {"x": [1]}})
    assert not validator("event").is_valid({**event, **change})
