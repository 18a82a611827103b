"""Runs that offer fewer tools than their case has: what is offered, what is recorded, and that scripts still answer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from marple.agent.affordances import families, offered_tools
from marple.agent.bench import Bench
from marple.agent.configuration import RunConfig
from marple.agent.investigator import Done, Play, Request, Script, ScriptInvestigator
from marple.agent.methods import find_method
from marple.agent.run import launch
from marple.errors import UnknownNameError, UsageError
from marple.tasks.kind import EVERY_TOOL, load_kinds
from marple.tools.contract import discover_tools
from marple.traces import RunFolder
from tests.agent.conftest import Play as PlayScript
from tests.agent.turns import chat, say, submit


def test_every_tool_is_in_a_family_and_the_families_are_those_of_the_methods() -> None:
    groups = families()
    assert sorted(name for names in groups.values() for name in names) == sorted([*discover_tools(), "python"])
    expected = {"prompting", "reasoning", "transcripts", "steering", "probing", "monitors", "sae", "lens", "patching"}
    assert set(groups) == expected | {"attribution", "diffing", "code"}
    assert groups["sae"] == ["sae_compare", "sae_features", "sae_lookup", "sae_search", "sae_steer"]


@pytest.mark.parametrize(
    ("choice", "left"),
    [
        ({"without": ["sae"]}, [t for t in EVERY_TOOL if not t.startswith("sae")]),
        ({"without": ["chat", "code"]}, [t for t in EVERY_TOOL if t not in ("chat", "python")]),
        ({"only": "prompting"}, ["chat", "battery", "prefill", "complete", "logprobs", "compare", "contrast"]),
        ({"only": "1"}, list(EVERY_TOOL[:10])),
        ({"only": "2", "without": ["prompting", "reasoning"]}, ["search_transcripts", "steer", "probe", "project"]),
        ({"only": "4"}, list(EVERY_TOOL)),
    ],
)
def test_a_choice_leaves_what_it_says(choice: dict[str, Any], left: list[str]) -> None:
    assert offered_tools(EVERY_TOOL, **choice) == left


def test_a_tool_of_the_users_own_goes_by_its_name_and_has_no_rung() -> None:
    assert offered_tools(["chat", "mine"], without=["mine"]) == ["chat"]
    assert offered_tools(["chat", "mine"], only="4") == ["chat"]


@pytest.mark.parametrize(
    ("options", "words"),
    [({"without": ["steerin"]}, "did you mean steering"), ({"only": "5"}, "unknown rung or family '5'")],
)
def test_a_name_that_means_nothing_is_refused_with_the_names_there_are(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UnknownNameError, match=words):
        RunConfig.of(case="hidden-goal/nano-01", investigator="prior", **options)


def test_a_choice_that_leaves_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="--only monitors leaves no tool"):
        RunConfig.of(case="hidden-goal/nano-01", investigator="prior", only="monitors")


@pytest.mark.asyncio(loop_scope="session")
async def test_what_is_left_out_is_neither_offered_nor_run_and_stands_in_the_run(play: PlayScript) -> None:
    script = [say("", chat()), say("", chat("again"), submit(id="s1"))]
    _, folder, model = await play(script, without=["chat"], only="1")
    offered = {tool.name for tool in model.calls[0].tools}
    assert "battery" in offered
    assert not offered & {"chat", "steer", "python"}
    calls = [event.payload for event in folder.events() if event.type == "tool_call"]
    assert calls[0]["status"] == "refused"
    assert "unknown tool 'chat'" in calls[0]["text"]
    assert (folder.spec["without"], folder.spec["only"]) == (["chat"], "1")
    assert "chat" not in folder.spec["affordances"]


def test_a_run_that_is_resumed_offers_the_same(tiny: Path, tmp_path: Path) -> None:
    config = RunConfig.of(target=str(tiny), investigator="llm", runs=tmp_path, without=["sae", "chat"], only="3")
    player = ScriptInvestigator("scripted-blackbox", find_method("hidden-goal", "blackbox"))
    again = RunConfig.from_spec(config.spec(player), runs=tmp_path)
    assert again.played.affordances == config.played.affordances
    assert "battery" in again.played.affordances


@pytest.mark.parametrize("kind", sorted(load_kinds()))
@pytest.mark.parametrize("sort", ["blackbox", "whitebox"])
def test_a_method_without_the_tools_it_is_made_of_still_answers(kind: str, sort: Any) -> None:
    """Every call is refused, as the loop refuses a tool that is not offered; the play ends with a valid answer."""
    form = load_kinds()[kind].answer
    script = find_method(kind, sort)()
    player = ScriptInvestigator("s", lambda: script)
    rounds: list[list[Done]] = []
    for _ in range(60):
        turn = player_turn(player, rounds)
        if [request.tool for request in turn] == ["submit"]:
            form.model_validate(turn[0].arguments)
            return
        rounds.append([Done(f"E{len(rounds)}", request.tool, False, "unknown tool") for request in turn])
    pytest.fail("it never answered")


def player_turn(player: ScriptInvestigator, rounds: Sequence[Sequence[Done]]) -> Sequence[Request]:
    from marple.agent.investigator import Situation

    situation = Situation((), (), ("complete",), lambda: rounds, wrap_up=False)
    return player._catch_up(situation)


class Careless(Script):
    """Reads a result without looking whether there is one."""

    def play(self, tools: Sequence[str]) -> Play:
        done = yield [Request("chat", {"messages": [{"role": "user", "content": "hi"}], "max_new_tokens": 2})]
        yield [Request("submit", {**self.answer_now(), "summary": done[0].data["replies"][0]["text"]})]


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize(("left_out", "ending"), [(["chat"], "target_never_called"), (["sae"], "submitted")])
async def test_a_script_that_needs_a_tool_answers_with_what_it_has(
    left_out: list[str], ending: str, tiny: Path, tmp_path: Path, bench: Bench
) -> None:
    config = RunConfig.of(target=str(tiny), investigator="llm", runs=tmp_path, without=left_out)
    outcome = await launch(config, investigator=ScriptInvestigator("careless", Careless), bench=bench)
    assert outcome.status == ending
    answer = [event.payload["answer"] for event in RunFolder.open(outcome.path).events() if event.type == "answer"]
    assert (answer[0]["summary"] == "Stopped before anything was found.") == (left_out == ["chat"])
