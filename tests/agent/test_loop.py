"""One investigation, turn by turn, with a real worker and a model that says what the test tells it to."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
from collections.abc import Sequence
from typing import Any

import pytest

from marple.agent.bench import Bench
from marple.agent.checking import replies_in
from marple.agent.models import Message, ModelTurn, ToolCall, ToolMessage, Usage
from marple.errors import ModelError
from marple.traces import RunFolder
from tests.agent.conftest import Play
from tests.agent.turns import CHAT, PLAN, call, chat, say, submit

pytestmark = pytest.mark.asyncio(loop_scope="session")


def of_type(folder: RunFolder, kind: str) -> list[dict[str, Any]]:
    return [event.payload for event in folder.events() if event.type == kind]


async def test_a_whole_run(play: Play) -> None:
    predict = call("predict", "p1", statement="it says yes", probability=0.9, word="yes", at_least=1.0)
    outcome, folder, model = await play(
        [
            say("first a plan", call("plan", "c0", **PLAN)),
            say("", predict, chat()),
            say("", call("hypothesis", "h1", action="add", statement="it speaks", credence=0.6, evidence=["E13"])),
            say("", submit("E13")),
        ]
    )
    assert outcome.status == "submitted"
    assert folder.result is not None
    assert folder.result.items() >= (outcome.result or {}).items()
    assert [p["proxy"] for p in of_type(folder, "plan")] == ["a word it favours"]
    chat_event = next(e for e in folder.events() if e.type == "tool_call" and e.payload["tool"] == "chat")
    assert chat_event.id == "E13"
    assert chat_event.payload["text"].startswith('reply 1: "')
    # "yes" in every reply of a random model is as good as impossible: 0.9 was a bad forecast, 3.3 bits of surprise.
    (measured,) = of_type(folder, "measurement")
    assert measured["happened"] is False
    assert measured["surprise_bits"] == pytest.approx(3.32, abs=0.01)
    assert of_type(folder, "hypothesis")[0]["id"] == "H1"
    assert outcome.result is not None
    assert outcome.result["answer"]["claims"][0]["evidence"] == ["E13"]
    assert outcome.result["scores"]["scored"] is False
    # The model saw the brief first, and every round's budget and results.
    last = model.calls[-1].messages
    assert "# Case hidden-goal/own-target" in last[0].text  # type: ignore[union-attr]
    assert "37 of 40 turns, 79 of 80 experiments" in last[-1].text  # type: ignore[union-attr]
    assert "surprise 3.3 bits" in " ".join(getattr(m, "text", "") for m in last)


async def test_mistakes_go_to_the_model_as_text_and_cost_nothing(play: Play) -> None:
    malformed = ToolCall.parse("m1", "chat", raw='{"messages": ')
    outcome, folder, model = await play(
        [
            say("", malformed, call("chatt", "u1", **CHAT), call("chat", "e1", messages=[]), submit("E99", id="s0")),
            say("", chat()),
            say("", submit()),
        ]
    )
    assert outcome.status == "submitted"
    texts = [p["text"] for p in of_type(folder, "tool_call")]
    assert "not a JSON object" in texts[0]
    assert "unknown tool 'chatt'; did you mean chat" in texts[1]
    assert "at least 1 item" in texts[2]
    assert "evidence 'E99' is not the id of one of your experiments" in texts[3]
    assert outcome.result is not None
    assert outcome.result["usage"]["calls"] == 1
    answers = [m for m in model.calls[1].messages if isinstance(m, ToolMessage)]
    assert [a.is_error for a in answers] == [True] * 4


async def test_an_answer_without_any_experiment_is_not_scored(play: Play) -> None:
    outcome, _, _ = await play([say("", submit())])
    assert outcome.status == "target_never_called"


async def test_a_limit_gives_a_turn_to_submit_and_only_that(play: Play) -> None:
    turns = [say("", chat(f"c{i}")) for i in range(2)]
    outcome, folder, model = await play([*turns, say("", chat("late"), submit("E5"))], budget="turns=2")
    assert outcome.status == "limit:turns"
    assert outcome.result is not None
    assert outcome.result["answer"] is not None
    assert [tool.name for tool in model.calls[-1].tools] == ["submit"]
    late = next(p for p in of_type(folder, "tool_call") if p["call_id"] == "late")
    assert late["status"] == "refused"
    assert outcome.result["usage"]["calls"] == 2


async def test_experiments_beyond_the_budget_are_not_run(play: Play) -> None:
    outcome, folder, _ = await play([say("", *(chat(f"c{i}") for i in range(5))), say("", submit())], budget="calls=3")
    assert outcome.status == "limit:calls"
    assert [p["status"] for p in of_type(folder, "tool_call") if p["tool"] == "chat"].count("ok") <= 3


async def test_a_limit_without_an_answer_ends_the_run(play: Play) -> None:
    outcome, _, _ = await play([say("", chat("a")), say("I would rather not.")], budget="turns=1")
    assert outcome.status == "limit:turns"
    assert outcome.result is not None
    assert outcome.result["answer"] is None


async def test_tokens_count(play: Play) -> None:
    usage = Usage(input_tokens=60, output_tokens=40)
    turns = [say("", chat("a"), usage=usage), say("", chat("b"), usage=usage), say("", submit(), usage=usage)]
    outcome, _, _ = await play(turns, budget="tokens=150")
    assert outcome.status == "limit:tokens"
    assert outcome.result is not None
    assert outcome.result["usage"]["investigator"]["gen_ai.usage.input_tokens"] == 180
    assert outcome.result["usage"]["investigator"]["cost_usd"] is None


async def test_a_refusal_is_an_outcome(play: Play) -> None:
    outcome, _, _ = await play([ModelTurn(stop="refusal", stop_detail="policy")])
    assert outcome.status == "refused_investigator"


async def test_a_failing_provider_ends_the_run_as_an_error(play: Play) -> None:
    outcome, folder, _ = await play([say("", chat()), ModelError("the provider is down")])
    assert outcome.status == "error"
    assert of_type(folder, "error")[-1]["message"] == "the provider is down"


async def test_silence_is_answered_by_reminders_and_then_ends_the_run(play: Play) -> None:
    outcome, folder, _ = await play([say("hm"), say("well"), say("so")])
    assert outcome.status == "invalid:no_answer"
    assert [p["kind"] for p in of_type(folder, "check_in")] == ["reminder", "reminder"]


async def test_check_ins_come_every_eight_experiments(play: Play) -> None:
    turns = [say("", chat(f"a{i}"), chat(f"b{i}"), chat(f"c{i}")) for i in range(6)]
    _, folder, model = await play([*turns, say("", submit())])
    boxes = [p for p in of_type(folder, "check_in") if p["kind"] == "time_box"]
    assert [p["after_turn"] for p in boxes] == [3, 6]
    assert "which objective check" in model.calls[3].messages[-1].text  # type: ignore[union-attr]


async def test_a_long_result_is_cut_and_can_be_read_on_row_by_row(play: Play) -> None:
    long = call("chat", "long", messages=CHAT["messages"], samples=400, max_new_tokens=40)
    pages: list[str] = []

    def script(messages: Sequence[Message]) -> ModelTurn:
        told = [message.text for message in messages if isinstance(message, ToolMessage)]
        if not told:
            return say("", long)
        pages.extend(told[1:][len(pages) :])
        on = re.search(r"go on with offset (\d+)", pages[-1]) if pages else None
        if pages and on is None:
            return say("", submit())
        offset = int(on[1]) if on else 0
        return say("", ToolCall.of("read_result", {"event": "E5", "offset": offset}, id=f"r{offset}"))

    _, folder, _ = await play(script)
    texts = {p["call_id"]: p["text"] for p in of_type(folder, "tool_call")}
    assert len(texts["long"]) < 17_000
    read = [text.rpartition("\n")[0].split("\n") for name, text in texts.items() if name.startswith("r")]
    assert len(read) == len(pages) > 3
    # The rest is the data itself: every reply, quoted, none of them cut.
    rows = [line for page in read for line in page if line.startswith('{"text": ')]
    assert len(rows) == 400
    assert all("tokens" in json.loads(row) for row in rows)
    assert all(page[-1] for page in read)


async def test_one_part_of_a_result_can_be_read_alone(play: Play) -> None:
    wanted = [("replies", "some"), ("nothing", "none")]
    reads = [ToolCall.of("read_result", {"id": "E5", "section": name}, id=id_) for name, id_ in wanted]
    _, folder, _ = await play([say("", chat()), say("", *reads), say("", submit())])
    texts = {p["call_id"]: p["text"] for p in of_type(folder, "tool_call")}
    assert texts["some"].startswith('{"text": ')
    assert "section 'nothing' is not in this result; it has" in texts["none"]


async def test_results_stand_in_the_order_of_their_calls(play: Play) -> None:
    slow = call("chat", "slow", messages=CHAT["messages"], samples=300, max_new_tokens=40)
    fast = call("chat", "fast", messages=CHAT["messages"], samples=1, max_new_tokens=1)
    _, _, model = await play([say("", slow, fast), say("", submit())])
    told = [message.call_id for message in model.calls[1].messages if isinstance(message, ToolMessage)]
    assert told == ["slow", "fast"]


async def test_an_overflowing_window_is_told_in_short_until_nothing_is_left_to_cut(play: Play) -> None:
    overflow = ModelTurn(stop="context_overflow")
    long = call("chat", "long", messages=CHAT["messages"], samples=100, max_new_tokens=40)
    outcome, folder, model = await play([say("", long), overflow, say("", submit())])
    assert outcome.status == "submitted"
    assert len(model.calls) == 3
    assert [p["reason"] for p in of_type(folder, "compaction")] == ["overflow"]
    again, _, _ = await play([say("", long), overflow, overflow])
    assert again.status == "limit:context"
    # Nothing has been said yet that could be left out.
    first, _, _ = await play([overflow])
    assert first.status == "limit:context"


async def test_a_refused_call_is_not_made(play: Play, tmp_path: Any) -> None:
    policy = tmp_path / "policy.yaml"
    policy.write_text("- {tool: 'c*', decision: refuse, reason: not today}\n")
    outcome, folder, _ = await play([say("", chat()), say("", submit())], approval=str(policy))
    assert outcome.status == "target_never_called"
    assert of_type(folder, "approval")[0]["allowed"] is False
    assert "not today" in of_type(folder, "tool_call")[0]["text"]


async def test_sigterm_drains_and_resume_finishes(play: Play, bench: Bench) -> None:
    from marple.agent.investigators.llm import LlmInvestigator
    from marple.agent.models import AssistantMessage, ScriptedModel
    from marple.agent.run import resume

    def script(messages: Any) -> ModelTurn:
        turn = sum(isinstance(m, AssistantMessage) for m in messages)
        if turn == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return say("", submit()) if turn == 3 else say("", chat(f"c{turn}"))

    outcome, folder, _ = await play(script)
    assert outcome.status == "interrupted"
    assert folder.status == "interrupted"
    await asyncio.sleep(0)
    finished = await resume(outcome.path, investigator=LlmInvestigator(ScriptedModel(script)), bench=bench)
    assert finished.status == "submitted"
    calls = [(p["turn_number"], p["index"], p["attempt"]) for p in of_type(RunFolder.open(outcome.path), "tool_call")]
    assert calls == [(1, 0, 1), (2, 0, 1), (3, 0, 1), (4, 0, 1)]
    assert len(of_type(RunFolder.open(outcome.path), "run_resume")) == 1
    assert (await resume(outcome.path)).status == "submitted"


async def test_the_event_log_alone_is_enough_to_go_on(play: Play, bench: Bench) -> None:
    """The loop's checkpoint is lost, as after a kill before it was first written: nothing is asked or run again."""
    from marple.agent.investigators.llm import LlmInvestigator
    from marple.agent.models import AssistantMessage, ScriptedModel
    from marple.agent.run import resume

    def script(messages: Any) -> ModelTurn:
        turn = sum(isinstance(m, AssistantMessage) for m in messages)
        if turn == 2 and not stopped:
            stopped.append(True)
            os.kill(os.getpid(), signal.SIGTERM)
        return say("", submit()) if turn == 4 else say("", chat(f"c{turn}"))

    stopped: list[bool] = []
    outcome, _, _ = await play(script)
    assert outcome.status == "interrupted"
    for path in outcome.path.glob("checkpoint.sqlite*"):
        path.unlink()
    model = ScriptedModel(script)
    finished = await resume(outcome.path, investigator=LlmInvestigator(model), bench=bench)
    assert finished.status == "submitted"
    assert len(model.calls) == 2
    folder = RunFolder.open(outcome.path)
    assert [p["turn_number"] for p in of_type(folder, "model_call")] == [1, 2, 3, 4, 5]
    assert [(p["turn_number"], p["attempt"]) for p in of_type(folder, "tool_call")] == [(t, 1) for t in range(1, 6)]


async def test_a_server_that_repeats_call_ids_loses_nothing(play: Play) -> None:
    def note(text: str) -> ToolCall:
        return call("hypothesis", "call_0", action="add", statement=text, credence=0.5)

    outcome, folder, _ = await play(
        [say("", note("one")), say("", note("two")), say("", chat("call_0"))] + [say("", submit(id="call_0"))]
    )
    assert outcome.status == "submitted"
    assert [p["statement"] for p in of_type(folder, "hypothesis")] == ["one", "two"]


async def test_replies_are_found_in_every_shape_of_result_and_by_condition() -> None:
    chat_like = {"on": "target", "replies": [{"text": "a"}, {"text": "b"}]}
    compare_like = {
        "rows": [{"condition": "x", "ngram": "a"}],
        "replies": [
            {"condition": "x", "prompt": "p", "target": ["c"], "reference": ["no"]},
            {"condition": "y", "prompt": "p", "target": ["d"], "reference": ["no"]},
        ],
        "mean_tokens": {"target": 3.5},
    }
    battery_like = {
        "rows": [
            {"condition": {"who": "x"}, "replies": [{"text": "e"}], "reference_replies": [{"text": "no"}]},
            {"condition": {"who": "y"}, "replies": [{"text": "f"}]},
        ]
    }
    data = [chat_like, compare_like, battery_like]
    assert list(replies_in(data)) == ["a", "b", "c", "d", "e", "f"]
    assert list(replies_in(data, "x")) == ["c", "e"]
    assert list(replies_in(data, "z")) == []
