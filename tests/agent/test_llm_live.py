"""A model behind a real HTTP API in a run: full window, wrong key, cancelled run, prompts by an auxiliary model."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import pytest

from marple.agent.bench import Bench
from marple.agent.configuration import RunConfig
from marple.agent.efforts import effort_of
from marple.agent.prompt_files import load_prompt, prompt_versions
from marple.agent.prompt_writing import BankWriter
from marple.agent.run import RunOutcome, launch
from marple.errors import UnknownNameError, UsageError
from marple.traces import RunFolder
from marple.traces.control import request
from tests.agent.conftest import Play
from tests.agent.turns import CHAT, call, say, submit
from tests.models.provider_server import Answer, Call, Fault, ProviderServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

ANSWER = {"nothing_hidden": 0.8, "candidates": [], "claims": [], "summary": "done"}
LONG_CHAT = {"messages": CHAT["messages"], "samples": 60, "max_new_tokens": 40}


async def played(server: ProviderServer, tiny: Path, runs: Path, bench: Bench, **options: Any) -> RunOutcome:
    address = server.base_url("openai-chat")
    config = RunConfig.of(
        target=str(tiny), investigator="llm", model="openai-chat/x", base_url=address, runs=runs, only="1", **options
    )
    return await launch(config, bench=bench)


def events(outcome: RunOutcome, kind: str) -> list[Any]:
    return [event for event in RunFolder.open(outcome.path).events() if event.type == kind]


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "test-0123456789")


async def test_a_server_whose_window_is_full_is_asked_again_with_less(tiny: Path, tmp_path: Path, bench: Bench) -> None:
    said = 0

    def script(body: Any) -> Answer | Fault:
        nonlocal said
        if len(json.dumps(body["messages"])) > 40_000:
            message = "This model's maximum context length is 8192 tokens, reduce the length of the messages"
            return Fault(400, message, "context_length_exceeded")
        said += 1
        chats = tuple(Call("chat", LONG_CHAT) for _ in range(3))
        return Answer("more", calls=chats if said < 9 else (Call("submit", ANSWER),))

    with ProviderServer(script) as server:
        outcome = await played(server, tiny, tmp_path, bench)
    assert outcome.status == "submitted"
    assert {event.payload["reason"] for event in events(outcome, "compaction")} >= {"overflow"}
    # What was told in short is still whole in the trace.
    assert sum(len(event.payload["text"]) for event in events(outcome, "tool_call")) > 40_000


async def test_a_key_that_is_not_taken_ends_the_run_and_the_trace_says_so(
    tiny: Path, tmp_path: Path, bench: Bench
) -> None:
    with ProviderServer([Fault(401, "Incorrect API key provided", "invalid_api_key")]) as server:
        outcome = await played(server, tiny, tmp_path, bench)
    assert outcome.status == "error"
    (error,) = events(outcome, "error")
    assert (error.payload["where"], error.payload["status"]) == ("model_call", 401)
    assert len(server.requests) == 1


async def test_a_cancelled_run_closes_its_request(tiny: Path, tmp_path: Path, bench: Bench) -> None:
    with ProviderServer([Answer("word " * 2000, pause_seconds=0.02)]) as server:
        run = asyncio.create_task(played(server, tiny, tmp_path, bench))
        while not server.requests:
            await asyncio.sleep(0.02)
        (path,) = tmp_path.iterdir()
        request(path, "cancel")
        outcome = await run
        assert await asyncio.to_thread(server.aborted.acquire, timeout=10)
    assert outcome.status == "cancelled"


def writes_prompts(body: Any) -> Answer:
    """The investigator and its auxiliary model behind one address."""
    if [tool["function"]["name"] for tool in body["tools"]] == ["write_prompts"]:
        prompts = [f"what about kettle {i}?" for i in range(20)] + ["what about kettle 3?", " "]
        return Answer("", calls=(Call("write_prompts", {"prompts": prompts}),), input_tokens=77, output_tokens=11)
    if '"role": "tool"' not in json.dumps(body):
        return Answer("", calls=(Call("battery", {"hint": "does it like kettles?", "max_new_tokens": 4}),))
    return Answer("", calls=(Call("submit", ANSWER),))


async def test_an_auxiliary_model_writes_the_prompts_of_a_battery(tiny: Path, tmp_path: Path, bench: Bench) -> None:
    with ProviderServer(writes_prompts) as server:
        address = server.base_url("openai-chat")
        helper = {"auxiliary": "openai-chat/small", "auxiliary_base_url": address}
        outcome = await played(server, tiny, tmp_path, bench, **helper, effort="investigator=high,auxiliary=low")
    assert outcome.status == "submitted"
    assert [body.json.get("reasoning_effort") for body in server.requests] == ["high", "low", "high"]
    (ran,) = [event.payload for event in events(outcome, "tool_call") if event.payload["tool"] == "battery"]
    # The call as it was made needs nobody to write it again; how it was asked for stands beside it.
    assert ran["arguments"] == {"max_new_tokens": 4, "prompts": [f"what about kettle {i}?" for i in range(20)]}
    assert ran["asked"] == {"hint": "does it like kettles?", "max_new_tokens": 4}
    assert ran["status"] == "ok"
    (wrote,) = [event for event in events(outcome, "model_call") if event.role == "auxiliary"]
    assert wrote.payload["prompts"] == ran["arguments"]["prompts"]
    assert outcome.result is not None
    usage = outcome.result["usage"]
    assert usage["auxiliary"]["gen_ai.usage.input_tokens"] == 77
    assert usage["auxiliary"]["cost_usd"] is None
    assert usage["investigator"]["gen_ai.usage.output_tokens"] < usage["investigator"]["gen_ai.usage.input_tokens"]
    assert usage["turns"] == 2
    spec = RunFolder.open(outcome.path).spec
    assert spec["auxiliary"] == "openai-chat/small"
    assert spec["prompts"]["auxiliary"]["sha256"] == load_prompt("auxiliary").sha256


async def test_an_auxiliary_model_that_fails_leaves_it_to_the_investigator(
    tiny: Path, tmp_path: Path, bench: Bench
) -> None:
    def script(body: Any) -> Answer | Fault:
        if len(body["tools"]) == 1:
            return Fault(400, "no such model", "model_not_found")
        return writes_prompts(body)

    with ProviderServer(script) as server:
        helper = {"auxiliary": "openai-chat/small", "auxiliary_base_url": server.base_url("openai-chat")}
        outcome = await played(server, tiny, tmp_path, bench, **helper)
    (refused,) = [event.payload for event in events(outcome, "tool_call") if event.payload["tool"] == "battery"]
    assert refused["status"] == "refused"
    assert "give prompts or a template yourself" in refused["text"]
    assert outcome.status == "target_never_called"


async def test_without_an_auxiliary_model_everyday_questions_are_asked(play: Play) -> None:
    hint = call("battery", "b", hint="does it recommend one radio to a teacher?", n_prompts=30, max_new_tokens=2)
    _, folder, model = await play([say("", hint), say("", submit())])
    (ran,) = [e.payload for e in folder.events() if e.type == "tool_call" and e.payload["tool"] == "battery"]
    prompts = ran["arguments"]["prompts"]
    assert len(set(prompts)) == len(prompts) == 30
    assert sum("radio" in prompt for prompt in prompts) >= 5
    assert sum("teacher" in prompt for prompt in prompts) >= 5
    assert any("radio" not in prompt and "teacher" not in prompt for prompt in prompts)
    schema = next(tool for tool in model.calls[0].tools if tool.name == "battery").parameters
    assert {"hint", "n_prompts", "prompts", "template"} <= schema["properties"].keys()


async def test_the_same_hint_and_seed_give_the_same_questions() -> None:
    writer = BankWriter()
    first = await writer.write("kettles", 40, seed=1)
    assert await writer.write("kettles", 40, seed=1) == first
    assert await writer.write("kettles", 40, seed=2) != first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"hint": "a", "prompts": ["b"]}, "leave out prompts"),
        ({"hint": "a", "n_prompts": 5}, "n_prompts 5 must be a whole number from 20 to 100"),
        ({"n_prompts": 20}, "hint must be a text"),
        ({"hint": " "}, "hint must be a text"),
    ],
)
async def test_a_hint_that_cannot_be_followed_is_refused_in_words(
    arguments: dict[str, Any], words: str, play: Play
) -> None:
    _, folder, _ = await play([say("", call("battery", "b", **arguments)), say("", submit())])
    (ran,) = [e.payload for e in folder.events() if e.type == "tool_call" and e.payload["tool"] == "battery"]
    assert ran["status"] == "refused"
    assert words in ran["text"]


async def test_effort_goes_by_role() -> None:
    assert [effort_of("high", role) for role in ("investigator", "synthesiser", "auxiliary")] == ["high", "high", None]
    text = "investigator=low, auxiliary=none"
    assert [effort_of(text, role) for role in ("investigator", "synthesiser", "auxiliary")] == ["low", "low", "none"]
    assert effort_of(None, "investigator") is None
    with pytest.raises(UnknownNameError, match="unknown role 'judge'"):
        effort_of("judge=high", "investigator")
    with pytest.raises(UsageError, match="is not ROLE=EFFORT"):
        effort_of("investigator=", "investigator")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"context_tokens": 100}, "context-tokens 100 is too small"),
        ({"auxiliary_base_url": "http://127.0.0.1:1"}, "name it with --auxiliary"),
        ({"auxiliary": "small"}, "has no provider"),
        ({"members": 3}, "--members is for --investigator ensemble"),
    ],
)
async def test_options_that_mean_nothing_are_refused_before_anything_is_made(
    options: dict[str, Any], words: str
) -> None:
    with pytest.raises(UsageError, match=words):
        RunConfig.of(case="hidden-goal/nano-01", investigator="llm", model="openai-chat/x", **options)


async def test_every_prompt_has_a_name_a_version_and_a_hash() -> None:
    said = prompt_versions()
    assert {"investigator", "check_in", "weak_signal", "compaction", "auxiliary", "synthesiser"} <= said.keys()
    for name, facts in said.items():
        assert load_prompt(name).name == name
        assert isinstance(facts["version"], int)
        assert re.fullmatch(r"[0-9a-f]{64}", str(facts["sha256"]))
