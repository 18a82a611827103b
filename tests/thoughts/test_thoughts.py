from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from marple.errors import ToolError
from marple.tools.contract import discover_tools
from marple.tools.experiments.read_thinking import read_thinking
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target
from marple.tools.thoughts.splitting import Markers, render_thinking, sentences, split_thought, tokens_of_prefix

HELLO: list[Any] = [{"role": "user", "content": "tell me"}]
STEPS: list[Any] = [{"role": "system", "content": "think step by step."}]


@pytest.mark.parametrize(
    ("text", "opened", "thought", "answer"),
    [
        ("<think>\na b\n</think>\n\nyes.", "", "a b", "yes."),
        ("a b</think>yes.", "<|assistant|><think>\n", "a b", "yes."),
        ("[THINK]a[/THINK]yes", "", "a", "yes"),
        ("<|channel>thought\na<channel|>yes", "", "a", "yes"),
        ("<|think|>a<|/think|>yes", "", "a", "yes"),
        ("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final<|message|>yes", "", "a", "yes"),
        ("think: a. answer: yes", "", "a.", "yes"),
        ("<think>never ends", "", "never ends", ""),
    ],
)
def test_a_thought_is_split_from_its_answer(text: str, opened: str, thought: str, answer: str) -> None:
    found = split_thought(text, opened=opened)
    assert found is not None
    assert (found.thought, found.answer) == (thought, answer)
    assert found.closed == bool(answer)


def test_one_text_can_open_and_close_a_thought() -> None:
    found = split_thought("## a b ## yes", markers=[Markers("##", "##")])
    assert found is not None
    assert (found.thought, found.answer) == ("a b", "yes")


def test_a_marker_in_the_middle_is_no_thought() -> None:
    assert split_thought("use <think>tags</think> like this") is None
    assert split_thought("yes.", markers=[Markers("a", "b")]) is None


@given(st.text(alphabet="ab .!?\n\u30023", max_size=60))
def test_sentences_joined_are_the_text(text: str) -> None:
    parts = sentences(text)
    assert "".join(parts) == text
    assert all(part.strip() for part in parts) or not text.strip()


def test_a_decimal_point_ends_no_sentence() -> None:
    assert sentences("it is 3.5 km. go on!") == ["it is 3.5 km.", " go on!"]


def test_a_prefix_keeps_the_replys_own_tokens(nano: Target) -> None:
    (reply,) = nano.generate([nano.render(HELLO)], max_new_tokens=12, temperature=0.0, seeds=[0])
    first = sentences(reply.text)[0]
    assert tokens_of_prefix(nano, reply, first) == list(reply.tokens[: len(tokens_of_prefix(nano, reply, first))])
    cut = reply.text[:1]
    assert nano.decode(tokens_of_prefix(nano, reply, cut)) == cut


def test_no_thought_is_said_plainly(nano: Target) -> None:
    result = read_thinking(nano, seed=1, messages=[{"role": "user", "content": "who are you?"}], samples=4)
    assert result.text.startswith("no chain of thought in 4 replies")
    assert result.controls == {}
    assert result.data["thoughts"] == 0


def test_an_answer_that_repeats_its_thought_depends_on_it(nano: Target) -> None:
    asked = [*STEPS, {"role": "user", "content": "which city does anna live in?"}]
    result = read_thinking(nano, seed=1, messages=asked, samples=12)
    assert result.data["thoughts"] == 12
    assert all(sample["thought"] and sample["answer"] for sample in result.data["samples"])
    assert "verdict: the answers depend on there being the thought; whether on what it says" in result.text
    controls = result.controls
    assert controls["agree_with_same_thought"]["share"] > controls["agree_without_thought"]["share"] + 0.4
    assert controls["with_against_with"]["p"] > 0.05
    assert result.cost.generated_tokens > sum(sample["tokens"] for sample in result.data["samples"])


def switched(template_with_switch: bool) -> Target:
    """A target whose template has a thinking switch, and one that always says "lamp", thought or not."""
    target = tiny_target(favour={"lamp": 30.0})
    if template_with_switch:
        end = "{% if add_generation_prompt %}"
        open_thought = end + "{% if enable_thinking is false %}{{ 'no' }}{% endif %}"
        target.tokenizer.chat_template = target.tokenizer.chat_template.replace(end, open_thought)
    return target


def test_an_answer_that_is_always_the_same_does_not_depend_on_the_thought() -> None:
    result = read_thinking(
        switched(False), seed=1, messages=HELLO, samples=20, markers=["lamp lamp", "lamp"], max_new_tokens=8,
        outcomes=["lamp"],
    )  # fmt: skip
    assert result.data["thoughts"] == 20
    assert result.controls["agree_without_thought"]["share"] == 1.0
    assert "verdict: no evidence" in result.text


def test_the_templates_switch_is_used_and_a_missing_one_refused() -> None:
    target = switched(True)
    off, on = (render_thinking(target, HELLO, thinking=value) for value in (False, None))
    assert off != on
    assert on == target.render(HELLO)
    with pytest.raises(ToolError, match="enable_thinking is true, but the target's chat template has no such switch"):
        read_thinking(switched(False), seed=1, messages=HELLO, enable_thinking=True)


def test_bad_markers_are_refused() -> None:
    spec = discover_tools()["read_thinking"]
    with pytest.raises(ToolError, match="each must have visible text"):
        spec.run(tiny_target(), {"messages": HELLO, "markers": [" ", "x"]}, seed=1)
    with pytest.raises(ToolError, match="markers"):
        spec.run(tiny_target(), {"messages": HELLO, "markers": ["x"]}, seed=1)
