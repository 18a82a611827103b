from typing import Any

import pytest

from marple.errors import ToolError
from marple.tools.contract import discover_tools
from marple.tools.experiments.resample import resample
from marple.tools.target.target import Target
from marple.tools.target.tiny import tiny_target
from marple.tools.thoughts.outcomes import NO_OUTCOME, OutcomeRule, compare_outcomes, share_interval, total_variation

SUM: list[Any] = [
    {"role": "system", "content": "think step by step."},
    {"role": "user", "content": "what is 3 plus 4 plus 2?"},
]
WORKED = "think: 3 plus 4 is 7. 7 plus 2 is 9. answer: it is 9."
COMMON: dict[str, Any] = {"answer_after": "answer:", "outcomes": ["9", "10", "8"], "samples": 24}


def test_outcomes_are_words_in_any_case_behind_the_marker() -> None:
    rule = OutcomeRule(("yes", "no"), "answer:")
    assert rule.of("no. answer: Yes!") == "yes"
    assert rule.of("answer: nothing") == NO_OUTCOME
    assert rule.of("yes and no") == "yes + no"
    assert OutcomeRule().of("  It is\n9. ") == "it is 9"
    with pytest.raises(ToolError, match="only white space"):
        OutcomeRule((" ",))


def test_total_variation_and_its_test() -> None:
    assert total_variation(["a"] * 3, ["a"] * 5) == 0
    assert total_variation(["a"] * 3, ["b"] * 5) == 1
    assert total_variation(["a", "b"], ["a", "a"]) == 0.5
    assert compare_outcomes(["a"] * 20, ["b"] * 20, seed=1).p < 0.001
    assert compare_outcomes(["a", "b"] * 10, ["b", "a"] * 10, seed=1).p == 1.0


def test_the_test_keeps_its_level_where_nothing_differs() -> None:
    import random

    draw = random.Random(3)
    p = [compare_outcomes(draw.choices("abc", k=12), draw.choices("abc", k=12), seed=s).p for s in range(200)]
    assert sum(value <= 0.05 for value in p) <= 18


def test_the_interval_of_a_share_covers_and_stays_within_bounds() -> None:
    assert share_interval(0, 10)[0] == pytest.approx(0, abs=1e-12)
    low, high = share_interval(5, 10)
    assert low == pytest.approx(0.2366, abs=1e-4)
    assert high == pytest.approx(0.7634, abs=1e-4)


def test_the_sentence_with_the_answer_decides(nano: Target) -> None:
    result = resample(nano, seed=1, messages=SUM, reply=WORKED, **COMMON)
    rows = result.data["sentences"]
    assert [row["sentence"] for row in rows] == ["think: 3 plus 4 is 7.", "7 plus 2 is 9.", "answer: it is 9."]
    assert [row["q"] <= 0.05 for row in rows] == [False, False, True]
    assert rows[2]["counterfactual"]["distance"] == 1.0
    assert result.data["boundaries"][3]["shares"] == {"9": 1.0}
    assert len(result.controls["first_half_against_second"]) == 4
    assert result.artifacts[0].data.startswith(b"\x89PNG")
    assert result.cost.generated_tokens > 24 * 3


def test_a_wrong_step_in_the_thought_moves_the_answer_and_other_words_in_the_prompt_do_not(nano: Target) -> None:
    wrong = {"where": "reply", "old": "7", "new": "8"}
    result = resample(nano, seed=1, messages=SUM, reply="think: 3 plus 4 is 7.", edit=wrong, **COMMON)  # type: ignore[arg-type]
    assert result.data["change"]["p"] < 0.01
    assert result.data["arms"]["unedited"]["shares"]["9"] > result.data["arms"]["edited"]["shares"].get("9", 0) + 0.3
    assert min(half["p"] for half in result.controls.values()) > 0.05
    same = {"where": "prompt", "old": "what is", "new": "how much is"}
    result = resample(nano, seed=1, messages=SUM, edit=same, **COMMON)  # type: ignore[arg-type]
    assert result.data["change"]["p"] > 0.05
    assert "does not detectably move" in result.text


def test_without_a_reply_one_is_sampled() -> None:
    target = tiny_target(favour={"lamp": 2.0})
    arguments = {"messages": SUM[1:], "samples": 4, "max_new_tokens": 5}
    spec = discover_tools()["resample"]
    first, again, other = (spec.run(target, arguments, seed=seed) for seed in (1, 1, 2))
    assert first.data == again.data
    assert first.data != other.data
    assert first.data["reply"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"edit": {"where": "prompt", "old": "lamp", "new": "x"}}, "'lamp' does not occur in the last user message"),
        ({"edit": {"where": "reply", "old": "lamp", "new": "x"}}, "'lamp' does not occur in the reply"),
        ({"edit": {"where": "prompt", "old": "what", "new": "what"}}, "old and new are the same"),
        ({"reply": "a. " * 61}, "61 sentences, and at most 60"),
        ({"samples": 2}, "samples is 2"),
        ({"temperature": 0}, "temperature is 0"),
    ],
)
def test_bad_arguments_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ToolError, match=message):
        discover_tools()["resample"].run(tiny_target(), {"messages": SUM[1:], **arguments}, seed=1)
