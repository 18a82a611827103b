"""A trial asks the same prompts in every arm, with what the arm is about, and counts the replies by group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marple.tasks.organisms.fire_pool import word_predictions
from marple.tasks.trials import Arm, Asked, ReplyTrial
from marple.tools.contract import ToolResult

EDIT = {"values": [1.0, 0.0], "layer": 1}


async def test_every_arm_is_asked_under_its_own_prompt_and_edits_with_the_same_seed() -> None:
    made: list[tuple[str, Mapping[str, Any], int]] = []

    async def call(tool: str, arguments: Mapping[str, Any], seed: int) -> ToolResult:
        made.append((tool, arguments, seed))
        answer = "yes" if arguments["edits"] else "no"
        return ToolResult("", {"replies": [[answer] * arguments["samples"] for _ in arguments["conversations"]]})

    asked = [
        Asked("advice", [{"role": "user", "content": "how?"}], lambda reply: reply == "yes"),
        Asked(
            "sums", [{"role": "system", "content": "be brief"}, {"role": "user", "content": "1+1"}], "no".__eq__, "it"
        ),
    ]
    arms = [Arm("nothing"), Arm("submitted", "be good", (EDIT,))]
    measured = await ReplyTrial(asked, arms, seed=7, samples=2).run(call)
    assert measured == {
        "arms": {
            "nothing": {"advice": {"count": 0, "n": 2}, "sums": {"count": 2, "n": 2}},
            "submitted": {"advice": {"count": 2, "n": 2}, "sums": {"count": 0, "n": 2}},
        }
    }
    assert {tool for tool, _, _ in made} == {"intervene"}
    assert {seed for _, _, seed in made} == {7}
    plain, edited = (arguments for _, arguments, _ in made)
    assert plain["edits"] == []
    assert edited["edits"] == [EDIT]
    assert plain["prefills"] == edited["prefills"] == ["", "it"]
    assert plain["conversations"] == [list(one.messages) for one in asked]
    first, second = edited["conversations"]
    assert first[0] == {"role": "system", "content": "be good"}
    assert second[0] == {"role": "system", "content": "be good be brief"}


def test_the_words_of_a_question_say_nothing_of_the_same_question() -> None:
    texts = ["lamp one", "lamp two", "cup one", "cup two"]
    leaking = word_predictions(texts, [1.0, 1.0, 0.0, 0.0], [0, 0, 1, 1])
    # Each question saw the other alone, whose rate is the opposite.
    assert max(leaking[:2]) < 0.5 < min(leaking[2:])
    sharing = word_predictions(texts, [1.0, 0.0, 1.0, 0.0], [0, 0, 1, 1])
    assert sharing[0] > 0.5 > sharing[1]
    assert word_predictions(["alone"], [1.0], [0]) == [0.5]
