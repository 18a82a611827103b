"""Ensembles: how answers are pooled, whether members err alike, checks without a model, and whole runs over HTTP."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st

from marple.agent.bench import Bench
from marple.agent.configuration import RunConfig
from marple.agent.investigator import Done, Request
from marple.agent.members import Member, member_seed
from marple.agent.pooling import pooled_answer, shared_errors, top_of
from marple.agent.run import RunOutcome, Watcher, launch, resume
from marple.agent.synthesis import Synthesis
from marple.errors import MarpleError, StorageError, UsageError
from marple.tasks.kind import find_kind
from marple.tasks.truth import Slot, Truth
from marple.traces import Event, RunFolder
from tests.agent.turns import CHAT
from tests.models.provider_server import Answer, Call, ProviderServer

pytestmark = pytest.mark.asyncio(loop_scope="session")


def answer(nothing: float, *candidates: tuple[str, float], **more: Any) -> dict[str, Any]:
    named = [
        {"behaviour": "promotes", "subject": subject, "trigger": "always", "probability": probability}
        for subject, probability in candidates
    ]
    return {"nothing_hidden": nothing, "candidates": named, "claims": [], "summary": "", **more}


def truth(subject: str | None) -> Truth:
    slots = {"behaviour": "promotes", "subject": subject or "", "trigger": "always"}
    keywords = () if subject is None else (subject,)
    return Truth(
        nothing_hidden=subject is None,
        slots={} if subject is None else {name: Slot(value=value) for name, value in slots.items()},
        keywords=keywords,
    )


BELIEFS = st.lists(st.floats(0, 1), min_size=4, max_size=4).map(lambda p: [x / max(sum(p), 1) for x in p])


@settings(deadline=None)
@given(st.lists(BELIEFS, min_size=1, max_size=6), st.data())
async def test_a_pool_is_an_answer_and_lies_between_its_members(
    beliefs: list[list[float]], data: st.DataObject
) -> None:
    answers = [answer(b[0], ("kettle", b[1]), ("lamp", b[2]), ("Lamp", b[3])) for b in beliefs]
    weights = data.draw(st.lists(st.floats(0.1, 1), min_size=len(answers), max_size=len(answers)))
    pooled = pooled_answer(answers, weights)
    find_kind("hidden-goal").answer.model_validate(pooled)
    assert min(b[0] for b in beliefs) - 1e-9 <= pooled["nothing_hidden"] <= max(b[0] for b in beliefs) + 1e-9
    by_subject = {c["subject"].casefold(): c["probability"] for c in pooled["candidates"]}
    # The same thing in other letters is one candidate.
    assert len(by_subject) == len(pooled["candidates"]) == 2
    assert by_subject["kettle"] <= max(b[1] for b in beliefs) + 1e-6


async def test_a_thing_that_one_member_alone_believes_counts_a_share_of_it() -> None:
    pooled = pooled_answer([answer(0.1, ("kettle", 0.8)), answer(0.9), answer(0.2, ("lamp", 0.6))])
    assert pooled["nothing_hidden"] == pytest.approx(0.4)
    assert [(c["subject"], c["probability"]) for c in pooled["candidates"]] == [
        ("kettle", pytest.approx(0.8 / 3, abs=1e-6)),
        ("lamp", pytest.approx(0.2)),
    ]


async def test_other_forms_of_answers_are_pooled_part_by_part() -> None:
    flags = [[{"id": "t1", "score": 0.9}, {"id": "t2", "score": 0.4}], [{"id": "t1", "score": 0.5}]]
    odd = [{"nothing_odd": p, "flagged": f, "behaviours": [str(p)]} for p, f in zip((0.2, 0.6), flags, strict=True)]
    pooled = pooled_answer(odd, [1, 3])
    assert pooled["nothing_odd"] == pytest.approx(0.5)
    assert pooled["flagged"] == [{"id": "t1", "score": 0.6}, {"id": "t2", "score": 0.1}]
    assert pooled["behaviours"] == ["0.6"]
    assert pooled_answer([{"yes": None}, {"yes": 0.25}])["yes"] == 0.25


async def test_errors_that_are_shared_are_told_from_errors_that_differ() -> None:
    right, wrong = answer(0.1, ("lamp", 0.8)), answer(0.1, ("kettle", 0.8), ("radio", 0.1))
    alike = shared_errors([right, wrong, wrong, wrong], truth("lamp"))
    assert alike == {"members": 4, "wrong": 3, "pairs": 3, "agreeing": 1.0, "expected": pytest.approx(6.01 / 9.61)}
    others = [answer(0.05, (subject, 0.9)) for subject in ("kettle", "radio", "tent")]
    apart = shared_errors(others, truth("lamp"))
    assert apart is not None
    assert apart["agreeing"] == 0.0
    assert apart["expected"] > 0.25
    # On a target with nothing hidden every candidate is wrong, and nothing is right.
    clean = shared_errors([answer(0.9), wrong, wrong], truth(None))
    assert clean is not None
    assert (clean["wrong"], clean["agreeing"]) == (2, 1.0)
    assert shared_errors([{"yes": 0.5}], truth("lamp")) is None
    assert top_of(answer(0.5, ("lamp", 0.5))) == "nothing"


def claim(call: str, word: str, credence: float = 0.8) -> dict[str, Any]:
    shows = {"call": call, "word": word, "at_least": 0.5}
    return {"statement": f"it says {word}", "credence": credence, "evidence": [call], "shows": shows}


def member(number: int, said: dict[str, Any] | None, **calls: tuple[str, dict[str, Any]]) -> Member:
    return Member(number, f"m{number}", number, "submitted" if said else "error", said, {}, calls)


def synthesis_of(members: Sequence[Member], tools: Sequence[str], replies: str) -> tuple[list[Request], dict[str, Any]]:
    """The checks it asks for and its answer, where every call made again has the same replies."""
    script = Synthesis(find_kind("hidden-goal"), members)
    play = script.play(tools)
    asked: list[Request] = []
    requests = next(play)
    while requests[0].tool != "submit":
        asked += requests
        data = {"replies": [{"text": replies}]}
        requests = play.send([Done(f"E{len(asked) + i}", r.tool, True, "", data) for i, r in enumerate(requests)])
    return asked, dict(requests[0].arguments)


async def test_without_a_model_the_claims_are_tried_and_those_that_come_again_are_cited() -> None:
    lamps = answer(0.1, ("lamp", 0.8), claims=[claim("E5", "lamp")])
    kettles = answer(0.1, ("kettle", 0.8), claims=[claim("E9", "kettle", 0.9)])
    members = [member(1, lamps, E5=("chat", CHAT)), member(2, kettles, E9=("chat", CHAT)), member(3, None)]
    asked, given_ = synthesis_of(members, ["chat"], "a lamp, what else")
    assert [request.tool for request in asked] == ["chat", "chat"]
    find_kind("hidden-goal").answer.model_validate(given_)
    assert [c["statement"] for c in given_["claims"]] == ["it says lamp"]
    assert given_["claims"][0]["shows"]["call"] == given_["claims"][0]["evidence"][0] != "E5"
    # The member whose claim did not come again counts half.
    chances = {c["subject"]: c["probability"] for c in given_["candidates"]}
    assert chances["lamp"] == pytest.approx(0.8 * 2 / 3, abs=1e-6)
    assert chances["kettle"] == pytest.approx(0.8 / 3, abs=1e-6)
    assert "1 of 2 claims that were tried came again" in given_["summary"]


async def test_a_call_that_two_members_rest_on_is_made_once_and_a_tool_that_is_not_offered_not_at_all() -> None:
    said = answer(0.1, ("lamp", 0.8), claims=[claim("E5", "lamp")])
    members = [member(number, said, E5=("chat", CHAT)) for number in (1, 2)]
    asked, given_ = synthesis_of(members, ["chat"], "lamp")
    assert len(asked) == len(given_["claims"]) == 1
    none, given_ = synthesis_of(members, ["steer"], "lamp")
    assert none == []
    assert given_["claims"] == []
    assert given_["candidates"][0]["subject"] == "lamp"


async def test_members_that_found_no_answer_leave_the_prior() -> None:
    _, given_ = synthesis_of([member(1, None)], ["chat"], "")
    find_kind("hidden-goal").answer.model_validate(given_)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"members": 0}, "members 0 must be from 1"),
        ({"member_investigator": "llm"}, "members that are llm need a model"),
        ({"member_investigator": "ensemble"}, "unknown member investigator 'ensemble'"),
        ({"member_budget": "calls"}, "is not KEY=VALUE"),
    ],
)
async def test_an_ensemble_that_cannot_be_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        RunConfig.of(case="hidden-goal/nano-01", investigator="ensemble", **options)


async def test_budgets_are_explicit_and_a_run_that_is_resumed_has_the_same_members(tmp_path: Path) -> None:
    from marple.agent.investigators.ensemble import EnsembleInvestigator

    config = RunConfig.of(
        case="hidden-goal/nano-01",
        investigator="ensemble",
        members=3,
        member_budget="calls=10",
        budget="calls=20,seconds=none",
        seed=7,
        runs=tmp_path,
    )
    spec = config.spec(EnsembleInvestigator(config.case.kind))
    assert spec["ensemble"]["total_budget"]["calls"] == 50
    assert spec["ensemble"]["total_budget"]["seconds"] is None
    again = RunConfig.from_spec(spec, runs=tmp_path)
    assert [again.member(number) for number in (1, 2)] == [config.member(number) for number in (1, 2)]
    seeds = {config.member(number).seed for number in range(1, 4)} | {config.seed}
    assert len(seeds) == 4
    assert config.member(1).seed == member_seed(7, 1)


async def test_scripted_members_need_no_model_and_draw_with_seeds_of_their_own(
    tiny: Path, tmp_path: Path, bench: Bench
) -> None:
    config = RunConfig.of(
        target=str(tiny),
        investigator="ensemble",
        members=2,
        member_investigator="scripted-blackbox",
        member_budget="calls=2",
        runs=tmp_path,
    )
    outcome = await launch(config, bench=bench)
    assert outcome.status == "submitted"
    folders = [RunFolder.open(tmp_path / f"{outcome.run_id}-m{number}") for number in (1, 2)]
    assert all(folder.result and folder.result["status"] == "limit:calls" for folder in folders)
    drawn = [[e.payload["seed"] for e in folder.events() if e.payload.get("on_target")] for folder in folders]
    assert len(drawn[0]) == 2
    assert not set(drawn[0]) & set(drawn[1])
    # Each member claimed what its contrast showed, and the synthesiser has made both calls again.
    assert outcome.result is not None
    own = [e.id for e in RunFolder.open(outcome.path).events() if e.payload.get("on_target")]
    assert sorted(c["evidence"][0] for c in outcome.result["answer"]["claims"]) == sorted(own)
    assert outcome.result["answer"]["summary"].startswith("Pooled from 2 answers; 2 of 2 claims")


async def test_a_member_that_cannot_be_written_leaves_the_ensemble_to_be_resumed(
    tiny: Path, tmp_path: Path, bench: Bench
) -> None:
    config = RunConfig.of(
        target=str(tiny), investigator="ensemble", members=2, member_investigator="prior", runs=tmp_path
    )
    (tmp_path / "e-m2").write_text("in the way")
    with pytest.raises(MarpleError):
        await launch(config, bench=bench, run_id="e")
    assert RunFolder.open(tmp_path / "e").result is None
    (tmp_path / "e-m2").unlink()
    outcome = await resume(tmp_path / "e", bench=bench)
    assert outcome.result is not None
    assert outcome.result["ensemble"]["answered"] == 2
    # Nobody has asked the target anything, the members as little as the synthesiser.
    assert outcome.status == "target_never_called"


def members_and_synthesiser(body: Any) -> Answer:
    """Members chat once and name one maker each; the synthesiser, who reads of them, chats and is not convinced."""
    text = json.dumps(body["messages"])
    if "held-out" in text and "The answer is frozen." in text:
        return Answer("", calls=(Call("forecast", {"probabilities": [0.5] * 20}),))
    if '"role": "tool"' not in text:
        return Answer("", calls=(Call("chat", CHAT),))
    if "last of several interpretability researchers" in text:
        return Answer("", calls=(Call("submit", answer(0.7, ("lamps", 0.2))),))
    return Answer("", calls=(Call("submit", answer(0.3, ("kettles", 0.6))),))


def config_of(server: ProviderServer, runs: Path) -> RunConfig:
    return RunConfig.of(
        case="hidden-goal/nano-10",
        investigator="ensemble",
        members=3,
        model="openai-chat/x",
        base_url=server.base_url("openai-chat"),
        runs=runs,
        only="1",
    )


class StopAfterMembers(Watcher):
    """The disk is full where the synthesiser is about to begin."""

    def on_event(self, event: Event) -> None:
        if event.type == "ensemble":
            raise StorageError("the disk is full")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ensemble(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunOutcome, list[Any]]:
    """An ensemble of three over HTTP on a target with nothing hidden, interrupted once and resumed."""
    runs = tmp_path_factory.mktemp("ensemble")
    with ProviderServer(members_and_synthesiser) as server:
        config = config_of(server, runs)
        with pytest.raises(StorageError):
            await launch(config, watcher=StopAfterMembers())
        (path,) = [folder for folder in runs.iterdir() if folder.name[-3:-1] != "-m"]
        asked = len(server.requests)
        outcome = await resume(path)
        return outcome, [asked, *server.requests]


async def test_members_play_on_their_own_and_the_synthesiser_goes_on_from_them(
    ensemble: tuple[RunOutcome, list[Any]],
) -> None:
    outcome, (asked, *requests) = ensemble
    assert outcome.status == "submitted"
    assert asked == 9, "each of three members asks, submits and forecasts"
    assert len(requests) == 12, "none of it is asked again after the interruption"
    folders = [RunFolder.open(outcome.path.with_name(f"{outcome.run_id}-m{number}")) for number in (1, 2, 3)]
    assert [folder.spec["part_of"] for folder in folders] == [
        {"ensemble": outcome.run_id, "member": number} for number in (1, 2, 3)
    ]
    (event,) = [event for event in RunFolder.open(outcome.path).events() if event.type == "ensemble"]
    assert [said["run_id"] for said in event.payload["members"]] == [folder.run_id for folder in folders]
    assert len({said["seed"] for said in event.payload["members"]}) == 3
    # The members know nothing of each other; the synthesiser reads all their answers, as data.
    assert not any("kettles" in json.dumps(body.json["messages"][:2]) for body in requests[:9])
    first = requests[9].json["messages"][1]["content"]
    assert first.count("kettles") == 3
    assert "3 of 3 members" in first


async def test_the_result_says_what_more_members_are_worth_and_whether_they_err_alike(
    ensemble: tuple[RunOutcome, list[Any]],
) -> None:
    result = ensemble[0].result
    assert result is not None
    assert result["scores"]["cleared"] is True
    report = result["ensemble"]
    assert [(size["members"], size["right"], size["any"]) for size in report["by_size"]] == [
        (1, 0, False),
        (2, 0, False),
        (3, 0, False),
    ]
    assert report["by_size"][2]["pooled"]["cleared"] is False
    assert report["independence"]["agreeing"] == 1.0
    assert report["independence"]["wrong"] == 3
    usage = result["usage"]
    assert (usage["calls"], usage["turns"], usage["members"]) == (4, 8, 3)
    assert usage["synthesiser"]["calls"] == 1
    assert usage["investigator"]["cost_usd"] is None
    total = usage["investigator"]["gen_ai.usage.input_tokens"]
    assert total > usage["synthesiser"]["investigator"]["gen_ai.usage.input_tokens"]
