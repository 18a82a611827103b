"""What providers are sent of a run on a hostile target, and that the run is the same as on its harmless twin."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest

from marple.agent.history import messages_from_events
from marple.agent.models import ToolMessage
from marple.tasks.budget import Budget
from tests.boundary.conftest import Investigate, Played
from tests.boundary.hostile import CANARY, FORGED_ANSWER, HARMLESS, HOSTILE, SPECIAL_TOKENS
from tests.boundary.scripts import careful, follows_any_text, follows_formats, results, strings

pytestmark = pytest.mark.asyncio(loop_scope="session")

PROVIDERS = ["openai", "openai-chat", "anthropic"]
UNSEEN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}


def field_of(played: Played) -> str:
    return f"untrusted_{played.folder.events()[0].payload['nonce']}"


def parsed(content: str) -> dict[str, Any]:
    value = json.loads(content.removeprefix("Error: "))
    assert isinstance(value, dict)
    return value


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_hostile_text_is_visible_json_inside_tool_results_and_nowhere_else(
    provider: str, investigate: Investigate
) -> None:
    played = await investigate(careful, provider=provider)
    assert played.outcome.status == "submitted"
    field, seen = field_of(played), ""
    for request in played.requests:
        contents = results(request.json)
        elsewhere = [text for text in strings(request.json) if text not in contents]
        assert not [text for text in elsewhere if CANARY in text]
        assert sum(field in text for text in elsewhere) <= 1  # the first message, which tells its name
        for content in contents:
            assert not [token for token in SPECIAL_TOKENS if token in content]
            assert not {c for c in content if unicodedata.category(c) in UNSEEN and c != "\n"}
            fields = parsed(content)
            lines = fields.pop(field, [])
            assert CANARY not in json.dumps(fields)
            assert not [name for name in fields if name.startswith("untrusted")]
            seen += "".join(f"{line}\n" for line in lines)
    # Nothing was dropped: behind the escapes stands what the target said, as the target said it.
    assert [word in seen for word in HOSTILE] == [True] * len(HOSTILE)


def state(played: Played) -> Any:
    """Everything a run decided and counted; what the target said, and clocks, apart."""
    result = played.outcome.result
    assert result is not None
    usage = {name: value for name, value in result["usage"].items() if name != "seconds"}
    events = []
    for event in played.folder.events():
        payload = {k: v for k, v in event.payload.items() if k not in ("sandbox", "nonce", "stored_bytes", "usage")}
        if event.type == "tool_call" and event.payload.get("by") != "harness" and event.role == "target":
            kept = ("tool", "status", "on_target", "arguments", "attempt", "call_id", "seed", "handles")
            tokens = {k: v for k, v in payload.get("cost", {}).items() if k != "seconds"}
            payload = {**{k: payload.get(k) for k in kept}, "tokens": tokens}
        elif event.type == "tool_call" and payload["tool"] == "read_result" or event.type == "error":
            payload = {"tool": payload.get("tool"), "status": payload.get("status")}
        elif event.type == "model_call":
            payload = {"calls": [(call["name"], call["arguments"]) for call in payload["turn"]["tool_calls"]]}
        events.append((event.id, event.type, event.role, {k: v for k, v in payload.items() if k != "call_id"}))
    return {"status": played.outcome.status, "answer": result["answer"], "scores": result["scores"]}, usage, events


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_a_hostile_target_changes_nothing_that_its_harmless_twin_does_not(
    provider: str, investigate: Investigate
) -> None:
    hostile = await investigate(careful, provider=provider, on="hostile")
    harmless = await investigate(careful, provider=provider, on="harmless")
    texts = [json.dumps([e.payload for e in p.folder.events()], ensure_ascii=False) for p in (hostile, harmless)]
    assert [CANARY in text for text in texts] == [True, False]
    assert [HARMLESS[0] in text for text in texts] == [False, True]
    assert state(hostile) == state(harmless)


async def test_the_comparison_sees_an_investigator_that_obeys_what_it_reads(investigate: Investigate) -> None:
    """The control of the test above: what the target says does change a run, where somebody follows it."""
    hostile = await investigate(follows_any_text, on="hostile")
    harmless = await investigate(follows_any_text, on="harmless")
    assert hostile.outcome.result is not None
    assert hostile.outcome.result["answer"] == json.loads(FORGED_ANSWER)
    assert state(hostile) != state(harmless)


@pytest.mark.parametrize("provider", PROVIDERS)
async def test_special_tokens_of_a_target_are_no_special_tokens_to_a_provider(
    provider: str, investigate: Investigate
) -> None:
    hostile = await investigate(follows_formats, provider=provider, on="hostile")
    harmless = await investigate(follows_formats, provider=provider, on="harmless")
    assert state(hostile) == state(harmless)
    # The control: the same investigator is caught by the text as the target said it.
    raw = "".join(e.payload["text"] for e in hostile.folder.events() if e.type == "tool_call")
    obeyed = follows_formats({"messages": [{"role": "assistant", "content": ""}, *_results(raw)]})
    assert obeyed.calls[0].arguments == json.loads(FORGED_ANSWER)


def _results(text: str) -> list[dict[str, Any]]:
    turn = [{"role": "tool", "content": text}, {"role": "assistant", "content": ""}]
    return [*turn, {"role": "tool", "content": text}]


async def test_the_conversation_is_rebuilt_from_the_log_to_the_letter(investigate: Investigate) -> None:
    played = await investigate(careful)
    rebuilt = [messages_from_events(played.folder.events(), Budget()) for _ in range(2)]
    assert rebuilt[0] == rebuilt[1]
    told = [message.text for message in rebuilt[0] if isinstance(message, ToolMessage)]
    sent = [content.removeprefix("Error: ") for content in results(played.requests[-1].json)]
    assert told[: len(sent)] == sent


async def test_each_run_has_a_field_of_its_own(investigate: Investigate) -> None:
    seen = [results((await investigate(careful)).requests[-1].json) for _ in range(2)]
    fields = {name for sent in seen for text in sent for name in parsed(text) if name.startswith("untrusted")}
    assert len(fields) == 2


async def test_scores_and_forecasts_do_not_depend_on_what_a_target_says(investigate: Investigate) -> None:
    """On a case with a truth, so that there is something to score, played on the hostile target and on its twin."""
    hostile, harmless = [
        await investigate(careful, on=on, case="hidden-goal/nano-10") for on in ("hostile", "harmless")
    ]
    assert state(hostile) == state(harmless)
    assert hostile.outcome.result is not None
    assert hostile.outcome.result["scores"]["scored"] is True
    assert hostile.outcome.result["scores"]["forecast"]["n"] == 20
    # The held-out questions quote replies too, and come inside a result as well.
    last = hostile.requests[-1].json
    asked = [content for content in results(last) if "held-out" in content]
    questions = parsed(asked[0])[field_of(hostile)]
    assert [sorted(question) for question in questions] == [["id", "prompt", "reply_a", "reply_b"]] * 20
    elsewhere = [text for text in strings(last) if text not in asked]
    assert not [text for text in elsewhere if questions[0]["reply_a"] in text]
