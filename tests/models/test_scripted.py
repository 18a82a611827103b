"""The model that needs no provider."""

from __future__ import annotations

import pytest

from marple.agent.models import Model, ModelTurn, ScriptedModel, ToolCall, ToolSchema, UserMessage
from marple.errors import ModelError

CALL = ToolCall.of("chat", {"prompt": "hi"})


async def test_a_list_is_played_in_order_and_then_ends():
    model: Model = ScriptedModel([ModelTurn(text="one", tool_calls=(CALL,)), ModelTurn(text="two")])
    first = await model.generate("", [], [])
    assert (first.text, first.stop, first.model) == ("one", "tool_calls", "scripted")
    second = await model.generate("", [], [])
    assert (second.text, second.stop) == ("two", "end")
    with pytest.raises(ModelError, match="2 turns"):
        await model.generate("", [], [])


async def test_a_function_sees_the_conversation():
    model = ScriptedModel(lambda messages: ModelTurn(text=f"{len(messages)} so far"))
    shown: list[str] = []
    tools = [ToolSchema("chat", "Talk.", {"type": "object"})]
    turn = await model.generate("S", [UserMessage("a"), UserMessage("b")], tools, on_delta=shown.append)
    assert turn.text == "2 so far"
    assert shown == ["2 so far"]
    assert (model.calls[0].system, model.calls[0].tools, len(model.calls[0].messages)) == ("S", tuple(tools), 2)


async def test_an_exception_in_the_script_is_raised():
    model = ScriptedModel([ModelError("down"), ModelTurn(text="up")])
    with pytest.raises(ModelError, match="down"):
        await model.generate("", [], [])
    assert (await model.generate("", [], [])).text == "up"


async def test_closing_is_noted():
    model = ScriptedModel([])
    await model.close()
    assert model.closed
