"""What holds for every provider, over real HTTP."""

from __future__ import annotations

import asyncio
import json
import traceback
from dataclasses import replace
from typing import Any

import pytest

from marple.agent.models import (
    PROVIDERS,
    AssistantMessage,
    Message,
    ModelTurn,
    Price,
    ToolCall,
    ToolMessage,
    ToolSchema,
    UserMessage,
)
from marple.errors import AuthenticationError, ModelError, RateLimitError, UsageError
from tests.models.provider_server import Answer, Call, Fault, Raw

PARAMETERS = {"type": "object", "properties": {"prompt": {"type": "string"}}, "required": ["prompt"]}
TOOLS = [ToolSchema("chat", "Talk to the target.", PARAMETERS), ToolSchema("plan", "Plan.", {"type": "object"})]
HELLO = [UserMessage("hello")]


def stored(turn: ModelTurn) -> ModelTurn:
    """The turn as a later process reads it from the trace."""
    return ModelTurn.from_dict(json.loads(json.dumps(turn.to_dict())))


async def test_text_streams_and_arrives_whole(provider, serve, opened):
    model = opened(provider, serve([Answer(text="Ça va? 日本 🦉 fine.", thinking="Let me greet.")]))
    shown: list[str] = []
    turn = await model.generate("Be brief.", HELLO, [], on_delta=shown.append)
    assert turn.text == "".join(shown) == "Ça va? 日本 🦉 fine."
    assert len(shown) > 1
    assert turn.thinking == ("Let me greet.",)
    assert (turn.stop, turn.tool_calls, turn.request_id) == ("end", (), "req_123")
    assert turn.model == model.name == f"{provider}/m"
    assert turn.response_model == "m"
    assert turn.seconds > 0


async def test_the_request_names_model_system_tools_and_limit(provider, serve, opened):
    server = serve([Answer(text="ok")])
    await opened(provider, server).generate("Be brief.", HELLO, TOOLS, max_output_tokens=1234)
    sent = server.requests[0].json
    assert sent["model"] == "m"
    assert sent["stream"] is True
    assert 1234 in (sent.get("max_tokens"), sent.get("max_output_tokens"))
    assert "Be brief." in json.dumps(sent)
    tool = sent["tools"][0]
    tool = tool.get("function", tool)
    assert (tool["name"], tool["description"]) == ("chat", "Talk to the target.")
    assert PARAMETERS in (tool.get("parameters"), tool.get("input_schema"))


async def test_a_tool_call_and_its_result_make_the_round(provider, serve, opened):
    script = [Answer(text="Trying.", calls=(Call("chat", {"prompt": "hé"}, id="id_1"),)), Answer(text="Done.")]
    server = serve(script)
    model = opened(provider, server)
    first = await model.generate("", HELLO, TOOLS)
    assert first.stop == "tool_calls"
    assert first.tool_calls == (ToolCall("id_1", "chat", {"prompt": "hé"}, first.tool_calls[0].raw),)
    answer = ToolMessage("id_1", "chat", "the target said é")
    second = await model.generate("", [*HELLO, AssistantMessage(stored(first)), answer], TOOLS)
    assert (second.text, second.stop) == ("Done.", "end")
    assert results(provider, server.requests[1].json) == [("id_1", "the target said é")]
    assert calls(provider, server.requests[1].json) == [("id_1", "chat", {"prompt": "hé"})]


async def test_parallel_calls_are_answered_together(provider, serve, opened):
    three = tuple(Call("chat", {"prompt": f"p{i}"}, id=f"id_{i}") for i in range(3))
    server = serve([Answer(calls=three), Answer(text="ok")])
    model = opened(provider, server)
    turn = await model.generate("", HELLO, TOOLS)
    assert [(call.id, call.arguments) for call in turn.tool_calls] == [
        (f"id_{i}", {"prompt": f"p{i}"}) for i in range(3)
    ]
    answers = [ToolMessage(call.id, call.name, f"r{i}") for i, call in enumerate(turn.tool_calls)]
    await model.generate("", [*HELLO, AssistantMessage(stored(turn)), *answers], TOOLS)
    assert results(provider, server.requests[1].json) == [(f"id_{i}", f"r{i}") for i in range(3)]


@pytest.mark.parametrize("raw", ['{"prompt": ', "[1]", '{"p": NaN}', '"text"', '{"p": "\\ud800"}', "{}{}"])
async def test_malformed_arguments_are_kept_and_can_be_answered(provider, serve, opened, raw):
    server = serve([Answer(calls=(Call("chat", raw, id="id_1"),)), Answer(text="sorry")])
    model = opened(provider, server)
    turn = await model.generate("", HELLO, TOOLS)
    [call] = turn.tool_calls
    assert (call.id, call.name, call.arguments, call.raw) == ("id_1", "chat", None, raw)
    assert call.error is not None
    assert "not a JSON object" in call.error
    answer = ToolMessage(call.id, call.name, call.error, is_error=True)
    assert (await model.generate("", [*HELLO, AssistantMessage(stored(turn)), answer], TOOLS)).text == "sorry"
    [(_, _, arguments)] = calls(provider, server.requests[1].json)
    assert arguments == {"INVALID_JSON": raw}


async def test_a_call_without_arguments_has_an_empty_object(provider, serve, opened):
    turn = await opened(provider, serve([Answer(calls=(Call("plan", ""),))])).generate("", HELLO, TOOLS)
    assert (turn.tool_calls[0].arguments, turn.tool_calls[0].error) == ({}, None)


async def test_a_tools_error_is_marked(provider, serve, opened):
    server = serve([Answer(calls=(Call("chat", {}, id="id_1"),)), Answer(text="ok")])
    model = opened(provider, server)
    turn = await model.generate("", HELLO, TOOLS)
    answer = ToolMessage("id_1", "chat", "no such prompt", is_error=True)
    await model.generate("", [*HELLO, AssistantMessage(turn), answer], TOOLS)
    sent = json.dumps(server.requests[1].json)
    assert '"is_error": true' in sent if provider == "anthropic" else "Error: no such prompt" in sent


async def test_a_turn_of_another_model_is_told_in_plain_form(provider, serve, opened):
    server = serve([Answer(text="ok")])
    turn = ModelTurn(text="I will ask.", tool_calls=(ToolCall.of("chat", {"prompt": "x"}, id="id_9"),))
    history: list[Message] = [*HELLO, AssistantMessage(turn), ToolMessage("id_9", "chat", "y")]
    await opened(provider, server).generate("", history, TOOLS)
    assert calls(provider, server.requests[0].json) == [("id_9", "chat", {"prompt": "x"})]
    assert "I will ask." in json.dumps(server.requests[0].json)


@pytest.mark.parametrize("stop", ["refusal", "content_filter"])
async def test_a_refusal_is_an_outcome(provider, serve, opened, stop):
    server = serve([Answer(text="I cannot", calls=(Call("chat", "{"),), stop=stop), Answer(text="ok")])
    model = opened(provider, server)
    turn = await model.generate("", HELLO, TOOLS)
    assert (turn.stop, turn.text, turn.tool_calls) == ("refusal", "I cannot", ())
    again = [*HELLO, AssistantMessage(stored(turn)), UserMessage("something else")]
    await model.generate("", again, TOOLS)
    sent = json.dumps(server.requests[1].json)
    assert "I cannot" not in sent
    assert "something else" in sent


@pytest.mark.parametrize(
    "fault",
    [
        Fault(400, "The response was filtered by the content management policy.", "content_filter"),
        Fault(403, "Your input was flagged.", "permission_error"),
        Fault(400, "Blocked.", "misalignment_policy_violation"),
        Fault(200, "Blocked.", "bio_policy", in_stream=True),
    ],
)
async def test_a_policy_error_is_a_refusal_with_its_reason(provider, serve, opened, fault):
    turn = await opened(provider, serve([fault])).generate("", HELLO, TOOLS)
    assert turn.stop == "refusal"
    assert turn.stop_detail is not None
    assert fault.message in turn.stop_detail


async def test_an_answer_cut_off_says_so(provider, serve, opened):
    script = [Answer(text="And then", calls=(Call("chat", '{"pro'),), stop="length")]
    turn = await opened(provider, serve(script)).generate("", HELLO, TOOLS)
    assert (turn.stop, turn.text) == ("length", "And then")
    assert turn.tool_calls[0].arguments is None


@pytest.mark.parametrize(
    "item",
    [
        Answer(stop="context_overflow"),
        Fault(400, "prompt is too long: 200001 tokens > 200000 maximum", "invalid_request_error"),
        Fault(400, "This model's maximum context length is 8 tokens.", "BadRequestError"),
        Fault(400, "the request exceeds the available context size", "exceed_context_size_error"),
        Fault(400, "Input too large.", "context_length_exceeded"),
        Fault(413, "Request exceeds the maximum size", "request_too_large"),
        Fault(413, "Payload Too Large", "http_error"),
        Fault(200, "prompt is too long: 9 tokens > 8 maximum", "invalid_request_error", in_stream=True),
    ],
)
async def test_an_overflowing_context_is_an_outcome(provider, serve, opened, item):
    turn = await opened(provider, serve([item])).generate("", HELLO, TOOLS)
    assert (turn.stop, turn.tool_calls, turn.native) == ("context_overflow", (), None)


async def test_other_bad_requests_are_errors(provider, serve, opened):
    script = [Fault(400, "max_tokens: 99 > 64, the maximum allowed", "invalid_request_error")]
    server = serve(script)
    with pytest.raises(ModelError, match=f"^{provider}/m: HTTP 400 invalid_request_error: max_tokens: 99"):
        await opened(provider, server).generate("", HELLO, TOOLS)
    assert len(server.requests) == 1


@pytest.mark.parametrize(("status", "code"), [(401, "authentication_error"), (403, "permission_error")])
async def test_a_key_that_is_not_taken_has_its_own_error_and_is_not_tried_again(provider, serve, opened, status, code):
    server = serve([Fault(status, "this key may not use this model", code)])
    with pytest.raises(AuthenticationError, match=f"HTTP {status} {code}: this key") as raised:
        await opened(provider, server).generate("", HELLO, [])
    assert raised.value.status == status
    assert len(server.requests) == 1


async def test_cancelling_while_it_waits_to_try_again_asks_no_more(provider, serve, opened):
    server = serve([Fault(429, "slow down", headers={"retry-after": "0.3"}), Answer(text="ok")])
    task = asyncio.create_task(opened(provider, server).generate("", HELLO, []))
    while not server.requests:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.5)
    assert len(server.requests) == 1


async def test_a_rate_limit_waits_as_long_as_the_server_says(provider, serve, opened):
    fault = Fault(429, "slow down and reduce the length of the messages", headers={"retry-after": "0.4"})
    server = serve([fault, Answer(text="ok")])
    assert (await opened(provider, server).generate("", HELLO, [])).text == "ok"
    first, second = server.requests
    assert second.seconds - first.seconds >= 0.4


async def test_a_rate_limit_that_stays_is_no_overflow(provider, serve, opened):
    server = serve([Fault(429, "reduce the length of the messages", "rate_limit_error")])
    with pytest.raises(RateLimitError, match="HTTP 429 rate_limit_error"):
        await opened(provider, server, max_retries=0).generate("", HELLO, [])


@pytest.mark.parametrize("status", [500, 529])
async def test_a_failing_server_is_tried_again(provider, serve, opened, status):
    fault = Fault(status, "overloaded", headers={"retry-after-ms": "10"})
    server = serve([fault, fault, Answer(text="ok")])
    assert (await opened(provider, server).generate("", HELLO, [])).text == "ok"
    assert len(server.requests) == 3


async def test_retries_end(provider, serve, opened):
    server = serve(lambda _: Fault(503, "down for maintenance", headers={"retry-after-ms": "1"}))
    with pytest.raises(ModelError, match="HTTP 503 .*down for maintenance"):
        await opened(provider, server, max_retries=2).generate("", HELLO, [])
    assert len(server.requests) == 3


@pytest.mark.parametrize("item", [Answer(text="half an answer", break_after=5), Answer(text="x", break_after=1)])
async def test_a_broken_stream_is_tried_again(provider, serve, opened, item):
    server = serve([item, Answer(text="whole")])
    assert (await opened(provider, server).generate("", HELLO, [])).text == "whole"


async def test_an_overload_within_a_stream_is_tried_again(provider, serve, opened):
    server = serve([Fault(200, "Overloaded", "overloaded_error", in_stream=True), Answer(text="whole")])
    assert (await opened(provider, server).generate("", HELLO, [])).text == "whole"


async def test_a_stream_that_keeps_breaking_is_an_error(provider, serve, opened):
    server = serve(lambda _: Answer(text="half an answer", break_after=4))
    with pytest.raises(ModelError, match=f"^{provider}/m: "):
        await opened(provider, server, max_retries=1).generate("", HELLO, [])
    assert len(server.requests) == 2


@pytest.mark.parametrize(
    "event",
    [
        {"type": "content_block_delta", "index": 7, "delta": {"type": "text_delta", "text": "x"}},
        {"type": "response.completed", "response": {"output": [{"type": "message"}]}},
        {"choices": [{"index": 0, "delta": {"content": 5}, "finish_reason": "stop"}]},
    ],
)
async def test_a_stream_nobody_documents_is_an_error(provider, serve, opened, event):
    server = serve([Raw([(event.get("type"), event)])])
    with pytest.raises(ModelError, match=f"^{provider}/m: ") as raised:
        await opened(provider, server, max_retries=0).generate("", HELLO, [])
    assert raised.value.__context__ is None


async def test_an_unreachable_server_is_named(provider, serve, opened):
    server = serve([])
    model = opened(provider, server, max_retries=0)
    server.close()
    with pytest.raises(ModelError, match=rf"{server.url}: Connection error"):
        await model.generate("", HELLO, [])


COUNTED = Answer(text="ok", input_tokens=1000, output_tokens=50, cached_tokens=600, cache_write_tokens=100)


async def test_usage_means_the_same_everywhere(provider, serve, opened):
    model = opened(provider, serve([replace(COUNTED, reasoning_tokens=30)]))
    usage = (await model.generate("", HELLO, [])).usage
    assert usage.to_dict() == {
        "gen_ai.usage.input_tokens": 1000,
        "gen_ai.usage.output_tokens": 50,
        "gen_ai.usage.cache_read.input_tokens": 600,
        "gen_ai.usage.cache_creation.input_tokens": 100,
        "gen_ai.usage.reasoning.output_tokens": 30,
        "cost_usd": None,
        "reported": True,
    }


async def test_a_known_price_gives_a_cost(provider, serve, opened):
    prices = {f"{provider}/m": Price(input=2.0, output=10.0, cache_read=0.5, cache_write=2.5)}
    model = opened(provider, serve([COUNTED]), prices=prices)
    usage = (await model.generate("", HELLO, [])).usage
    assert usage.cost_usd == pytest.approx((300 * 2.0 + 600 * 0.5 + 100 * 2.5 + 50 * 10.0) / 1e6)


async def test_effort_reaches_the_provider(provider, serve, opened):
    server = serve([Answer(text="ok"), Answer(text="ok"), Answer(text="ok")])
    model = opened(provider, server, effort="low")
    await model.generate("", HELLO, [])
    await model.generate("", HELLO, [], effort="high")
    plain = opened(provider, server)
    await plain.generate("", HELLO, [])
    assert [effort_of(request.json) for request in server.requests] == ["low", "high", None]


async def test_an_effort_nobody_has_is_refused_before_any_request(provider, serve, opened):
    server = serve([])
    with pytest.raises(UsageError, match=f"{provider}/m has no effort 'huge'.*medium"):
        opened(provider, server, effort="huge")
    with pytest.raises(UsageError, match="huge"):
        await opened(provider, server).generate("", HELLO, [], effort="huge")
    assert server.requests == []


async def test_the_key_is_sent_and_stays_out_of_turns(provider, serve, opened, key):
    server = serve([Answer(text="ok", calls=(Call("chat", {}),))])
    model = opened(provider, server)
    turn = await model.generate("", HELLO, TOOLS)
    assert server.requests[0].headers["authorization"] == f"Bearer {key}"
    assert key not in json.dumps(turn.to_dict())
    assert key not in repr(turn) + repr(model) + json.dumps(server.requests[0].json)


@pytest.mark.parametrize("status", [401, 400, 500])
@pytest.mark.parametrize("in_stream", [False, True])
async def test_an_error_that_echoes_the_key_is_scrubbed(provider, serve, opened, key, status, in_stream):
    fault = Fault(status, "Incorrect API key", "authentication_error", echo_key=True, in_stream=in_stream)
    model = opened(provider, serve([fault]), max_retries=0)
    with pytest.raises(ModelError) as raised:
        await model.generate("", HELLO, [])
    told = "".join(traceback.format_exception(raised.value))
    assert "Incorrect API key" in str(raised.value)
    assert key not in told
    assert key[-12:] not in told
    assert raised.value.__context__ is None


@pytest.mark.parametrize("echo", ["plain-0123456789", "sk-pr**********6789", "Bearer other-0123456789"])
async def test_no_shape_of_a_key_is_told(provider, serve, opened, monkeypatch, echo):
    monkeypatch.setenv(PROVIDERS[provider].key_variable, "plain-0123456789")
    script = [Fault(401, f"Incorrect API key provided: {echo}. Find yours on the site.", "invalid_api_key")]
    with pytest.raises(ModelError, match=r"key provided: \[key\]") as raised:
        await opened(provider, serve(script)).generate("", HELLO, [])
    assert "6789" not in str(raised.value)


async def test_cancelling_closes_the_connection(provider, serve, opened):
    server = serve([Answer(text="a long answer " * 50, pause_seconds=0.02), Answer(text="ok")])
    model = opened(provider, server)
    arrived = asyncio.Event()
    task = asyncio.create_task(model.generate("", HELLO, [], on_delta=lambda _: arrived.set()))
    await arrived.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    # The server notices when it writes into the closed connection.
    assert await asyncio.to_thread(server.aborted.acquire, timeout=5)
    assert (await model.generate("", HELLO, [])).text == "ok"


async def test_halves_of_a_character_in_two_deltas_are_joined(provider, serve, opened):
    owl, half = "\ud83e\udd89", "\udd89"
    model = opened(provider, serve([Answer(text=f"ab{owl}cd" + owl * 9 + half)]))
    shown: list[str] = []
    turn = await model.generate("", HELLO, [], on_delta=shown.append)
    assert turn.text == "ab🦉cd" + "🦉" * 9 + "\ufffd"
    json.dumps(turn.to_dict(), ensure_ascii=False).encode()
    "".join(shown).encode()


async def test_closing_twice_is_fine(provider, serve, opened):
    model = opened(provider, serve([]))
    await model.close()
    await model.close()


def calls(provider: str, sent: Any) -> list[tuple[str, str, Any]]:
    """(id, name, arguments) of every call in the history that was sent."""
    if provider == "anthropic":
        blocks = [b for m in sent["messages"] if m["role"] == "assistant" for b in m["content"]]
        return [(b["id"], b["name"], b["input"]) for b in blocks if b["type"] == "tool_use"]
    if provider == "openai":
        made = [item for item in sent["input"] if item.get("type") == "function_call"]
        return [(item["call_id"], item["name"], json.loads(item["arguments"])) for item in made]
    made = [call for m in sent["messages"] for call in m.get("tool_calls", [])]
    return [(c["id"], c["function"]["name"], json.loads(c["function"]["arguments"])) for c in made]


def results(provider: str, sent: Any) -> list[tuple[str, str]]:
    """(call id, text) of every tool result that was sent, from one message where the API wants one."""
    if provider == "anthropic":
        [last] = [m for m in sent["messages"] if m["role"] == "user"][1:]
        return [(b["tool_use_id"], b["content"]) for b in last["content"] if b["type"] == "tool_result"]
    if provider == "openai":
        found = [item for item in sent["input"] if item.get("type") == "function_call_output"]
        return [(item["call_id"], item["output"]) for item in found]
    return [(m["tool_call_id"], m["content"]) for m in sent["messages"] if m["role"] == "tool"]


def effort_of(sent: Any) -> str | None:
    chat = sent.get("reasoning_effort")
    return chat or (sent.get("reasoning") or sent.get("output_config") or {}).get("effort")
