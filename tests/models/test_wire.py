"""What is particular to one provider's wire."""

from __future__ import annotations

import json
from typing import Any

import pytest

from marple.agent.models import AssistantMessage, ModelTurn, ToolCall, ToolMessage, ToolSchema, UserMessage
from marple.agent.models.adapter import Endpoint, Prompt
from marple.agent.models.openai_chat import OpenAIChat
from marple.errors import ModelError
from tests.models.provider_formats import anthropic_events
from tests.models.provider_server import Answer, Call, Raw

TOOLS = [ToolSchema("chat", "Talk.", {"type": "object"}), ToolSchema("plan", "Plan.", {"type": "object"})]
HELLO = [UserMessage("hello")]
THINKING = Answer(thinking="Should I? I should.", text="Asking.", calls=(Call("chat", {"a": 1}, id="id_1"),))


async def second_request(provider, serve, opened, *, first=THINKING, extra=(), **options):
    """Play ``first``, answer its call from a stored copy of the turn, and return what was sent then."""
    server = serve([first, Answer(text="ok")])
    model = opened(provider, server, **options)
    turn = await model.generate("Be brief.", HELLO, TOOLS)
    turn = ModelTurn.from_dict(json.loads(json.dumps(turn.to_dict())))
    answers = [ToolMessage(call.id, call.name, "said") for call in turn.tool_calls]
    await model.generate("Be brief.", [*HELLO, AssistantMessage(turn), *answers, *extra], TOOLS)
    return server.requests[1].json


async def test_anthropic_thinking_goes_back_signed(serve, opened):
    sent = await second_request("anthropic", serve, opened)
    assert sent["messages"][1] == {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Should I? I should.", "signature": "sig:Should I? I should."},
            {"type": "redacted_thinking", "data": "opaque=="},
            {"type": "text", "text": "Asking."},
            {"type": "tool_use", "id": "id_1", "name": "chat", "input": {"a": 1}},
        ],
    }


async def test_anthropic_results_come_first_in_one_user_message(serve, opened):
    two = Answer(calls=(Call("chat", {}, id="id_1"), Call("plan", {}, id="id_2")))
    sent = await second_request("anthropic", serve, opened, first=two, extra=[UserMessage("3 turns left")])
    assert [message["role"] for message in sent["messages"]] == ["user", "assistant", "user"]
    assert [block["type"] for block in sent["messages"][2]["content"]] == ["tool_result", "tool_result", "text"]


async def test_anthropic_results_come_first_even_when_told_later(serve, opened):
    server = serve([Answer(text="ok")])
    turn = ModelTurn(tool_calls=(ToolCall.of("chat", {}, id="id_1"),))
    history = [*HELLO, AssistantMessage(turn), UserMessage("by the way"), ToolMessage("id_1", "chat", "said")]
    await opened("anthropic", server).generate("", history, TOOLS)
    assert [block["type"] for block in server.requests[0].json["messages"][2]["content"]] == ["tool_result", "text"]


async def test_anthropic_caches_tools_system_and_the_last_turn(serve, opened):
    sent = await second_request("anthropic", serve, opened)
    cached = {"type": "ephemeral"}
    assert [tool.get("cache_control") for tool in sent["tools"]] == [None, cached]
    assert [part.get("cache_control") for part in sent["system"]] == [cached]
    blocks = [block for message in sent["messages"] for block in message["content"]]
    assert [block.get("cache_control") for block in blocks] == [None] * (len(blocks) - 1) + [cached]


async def test_anthropic_effort_asks_for_readable_thinking(serve, opened):
    high = await second_request("anthropic", serve, opened, effort="high")
    assert high["thinking"] == {"type": "adaptive", "display": "summarized"}
    assert high["output_config"] == {"effort": "high"}
    none = await second_request("anthropic", serve, opened, effort="none")
    assert none["thinking"] == {"type": "disabled"}
    assert "output_config" not in none


async def test_anthropic_refusal_gives_its_category(serve, opened):
    turn = await opened("anthropic", serve([Answer(stop="refusal")])).generate("", HELLO, [])
    assert turn.stop_detail == "frontier_llm: not allowed"


async def test_anthropic_thinking_cut_before_its_signature_is_not_sent_back(serve, opened):
    blocks = [{"type": "thinking", "thinking": "Hmm", "signature": ""}, {"type": "text", "text": " \n"}]
    turn = ModelTurn(stop="length", native={"wire": "anthropic-messages", "content": blocks})
    server = serve([Answer(text="ok")])
    history = [*HELLO, AssistantMessage(turn), UserMessage("go on")]
    await opened("anthropic", server).generate("", history, [])
    [message] = server.requests[0].json["messages"]
    assert [block["text"] for block in message["content"]] == ["hello", "go on"]


async def test_anthropic_sends_no_sampling_parameters(serve, opened):
    sent = await second_request("anthropic", serve, opened)
    assert not {"temperature", "top_p", "top_k"} & set(sent)


async def test_responses_reasoning_goes_back_encrypted(serve, opened):
    sent = await second_request("openai", serve, opened)
    assert (sent["store"], sent["include"]) == (False, ["reasoning.encrypted_content"])
    kinds = [item.get("type", item.get("role")) for item in sent["input"]]
    assert kinds == ["user", "reasoning", "message", "function_call", "function_call_output"]
    reasoning = sent["input"][1]
    assert reasoning["encrypted_content"] == "sealed:Should I? I should."
    assert reasoning["summary"] == [{"type": "summary_text", "text": "Should I? I should."}]
    assert sent["input"][3]["arguments"] == '{"a": 1}'


async def test_responses_asks_for_a_summary_with_an_effort(serve, opened):
    assert (await second_request("openai", serve, opened, effort="low"))["reasoning"] == {
        "effort": "low",
        "summary": "auto",
    }
    assert (await second_request("openai", serve, opened, effort="none"))["reasoning"] == {"effort": "none"}


async def test_responses_cache_key_follows_the_fixed_prefix(serve, opened):
    server = serve(lambda _: Answer(text="ok"))
    model = opened("openai", server)
    for system, tools in [("A", TOOLS), ("A", TOOLS), ("B", TOOLS), ("A", TOOLS[:1])]:
        await model.generate(system, HELLO, tools)
    keys = [request.json["prompt_cache_key"] for request in server.requests]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


async def test_responses_reasoning_without_its_answer_is_not_sent_back(serve, opened):
    server = serve([Answer(thinking="Hmm", stop="length"), Answer(text="ok")])
    model = opened("openai", server)
    turn = await model.generate("", HELLO, [])
    assert turn.stop == "length"
    await model.generate("", [*HELLO, AssistantMessage(turn), UserMessage("go on")], [])
    assert [item["content"] for item in server.requests[1].json["input"]] == ["hello", "go on"]


@pytest.mark.parametrize("field", ["reasoning_content", "reasoning"])
async def test_chat_reasoning_goes_back_by_the_name_it_came(serve, opened, field):
    first = Answer(thinking="Should I?", calls=(Call("chat", {}, id="id_1"),), reasoning_field=field)
    sent = await second_request("openai-chat", serve, opened, first=first)
    assistant = sent["messages"][2]
    assert assistant[field] == "Should I?"
    assert {"reasoning_content", "reasoning"} & set(assistant) == {field}
    assert sent["messages"][3] == {"role": "tool", "tool_call_id": "id_1", "content": "said"}


async def test_chat_reasoning_without_an_answer_is_not_sent_back(serve, opened):
    sent = await second_request("openai-chat", serve, opened, first=Answer(thinking="Hmm", stop="length"))
    assert [message["role"] for message in sent["messages"]] == ["system", "user"]


async def test_chat_without_usage_is_unknown_not_free(serve, opened):
    model = opened("openai-chat", serve([Answer(text="ok", usage=False)]))
    usage = (await model.generate("", HELLO, [])).usage
    assert (usage.reported, usage.cost_usd, usage.input_tokens) == (False, None, 0)


async def test_chat_asks_another_server_in_the_older_words(serve, opened):
    sent = await second_request("openai-chat", serve, opened)
    assert sent["max_tokens"] == 4096
    assert not {"max_completion_tokens", "prompt_cache_key"} & set(sent)
    assert sent["stream_options"] == {"include_usage": True}


async def test_chat_asks_openai_in_the_newer_words():
    endpoint = Endpoint(name="openai-chat/m", model="m", base_url="https://api.openai.com/v1", own_host=True)
    model = OpenAIChat(endpoint)
    prompt = Prompt(system="", messages=HELLO, tools=[], max_output_tokens=7, effort=None)
    body = model.request(prompt)
    assert body["max_completion_tokens"] == 7
    assert body["prompt_cache_key"] == prompt.cache_key
    assert "max_tokens" not in body
    await model.close()


async def test_chat_takes_whole_calls_without_index_and_id(serve, opened):
    made = [{"function": {"name": "chat", "arguments": json.dumps({"a": number})}} for number in (1, 2)]
    chunks = [{"choices": [{"delta": {"tool_calls": [call]}}]} for call in made]
    end = {"choices": [{"finish_reason": "tool_calls"}]}
    script = [Raw([(None, data) for data in [{"object": "keep-alive"}, *chunks, end]])]
    turn = await opened("openai-chat", serve(script)).generate("", HELLO, TOOLS)
    assert [call.arguments for call in turn.tool_calls] == [{"a": 1}, {"a": 2}]
    assert len({call.id for call in turn.tool_calls}) == 2
    assert all(call.id for call in turn.tool_calls)


async def test_chat_reasoning_details_are_put_together_and_go_back(serve, opened):
    def chunk(finish=None, **delta):
        return None, {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}

    kind = {"type": "reasoning.text", "index": 0}
    first = [{**kind, "text": "Shou"}], [{**kind, "text": "ld I?"}], [{**kind, "signature": "sig"}]
    sealed = {"type": "reasoning.encrypted", "index": 1, "data": "opaque"}
    call = {"index": 0, "id": "id_1", "function": {"name": "chat", "arguments": "{}"}}
    events = [chunk(reasoning="Shou"), *(chunk(reasoning_details=details) for details in first)]
    events += [chunk(reasoning_details=[sealed]), chunk(tool_calls=[call]), chunk("tool_calls")]
    sent = await second_request("openai-chat", serve, opened, first=Raw(events))
    assert sent["messages"][2]["reasoning_details"] == [{**kind, "text": "Should I?", "signature": "sig"}, sealed]


async def test_chat_stream_of_a_server_that_gives_up_is_an_error(serve, opened):
    for events in ([(None, {"error": "CUDA out of memory"})], [(None, "{not json")], [(None, "[DONE]")]):
        model = opened("openai-chat", serve([Raw(events)]), max_retries=0)
        with pytest.raises(ModelError, match="openai-chat/m: "):
            await model.generate("", HELLO, [])


async def test_responses_items_sent_only_one_by_one_are_taken(serve, opened):
    item: dict[str, Any] = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    item["content"] = [{"type": "output_text", "text": "hi", "annotations": []}]
    events = [
        ("response.output_item.done", {"type": "response.output_item.done", "output_index": 0, "item": item}),
        ("response.completed", {"type": "response.completed", "response": {"id": "resp_1", "output": []}}),
    ]
    turn = await opened("openai", serve([Raw(events)])).generate("", HELLO, [])
    assert (turn.text, turn.usage.reported) == ("hi", False)


async def test_anthropic_events_of_a_kind_not_known_are_passed_over(serve, opened):
    events = list(anthropic_events(Answer(text="hi"), "m"))
    novel = {"type": "content_block_start", "index": 1, "content_block": {"type": "novel_block", "x": 1}}
    events[-2:-2] = [("weather", {"type": "weather"}), ("content_block_start", novel)]
    turn = await opened("anthropic", serve([Raw(events)])).generate("", HELLO, [])
    assert turn.text == "hi"
    assert turn.native is not None
    assert turn.native["content"][1] == {"type": "novel_block", "x": 1}


async def test_a_turn_travels_from_one_provider_to_another(serve, opened):
    server = serve([THINKING, Answer(text="ok")])
    turn = await opened("anthropic", server).generate("", HELLO, TOOLS)
    history = [*HELLO, AssistantMessage(turn), ToolMessage("id_1", "chat", "said")]
    await opened("openai", server).generate("", history, TOOLS)
    kinds = [item.get("type", item.get("role")) for item in server.requests[1].json["input"]]
    assert kinds == ["user", "assistant", "function_call", "function_call_output"]


def test_a_scripted_call_is_well_formed():
    assert ToolCall.of("chat", {"prompt": "é"}) == ToolCall("call_1", "chat", {"prompt": "é"}, '{"prompt": "é"}')
