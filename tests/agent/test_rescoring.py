"""An old run is scored again from its events; what was written when it ended stays."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from typer.testing import CliRunner

from marple.agent.configuration import RunConfig
from marple.agent.judging import judge_run
from marple.agent.models import ScriptedModel, open_model
from marple.agent.rescoring import FILE, rescore, session_again
from marple.agent.run import launch
from marple.cli import app
from marple.errors import UsageError
from marple.traces import RunFolder
from tests.agent.conftest import Play
from tests.agent.turns import chat, say, submit
from tests.models.provider_server import Answer, ProviderServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

CASE = "hidden-goal/nano-09"


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that answered from the brief alone: no worker, but an answer, forecasts and scores."""
    runs = tmp_path_factory.mktemp("runs")
    return (await launch(RunConfig.of(case=CASE, investigator="prior", seed=2, runs=runs))).path


@pytest.fixture
def old(ended: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(ended, tmp_path / "runs" / ended.name))


def change(path: Path, how: Callable[[dict[str, Any]], None]) -> None:
    """Change every event, or a document."""
    lines = path.read_text().splitlines()
    records = [json.loads(line) for line in lines]
    for record in records:
        how(record)
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))


async def test_the_same_run_has_the_same_scores(old: Path) -> None:
    result = (old / "result.json").read_bytes()
    document = rescore(RunFolder.open(old))
    assert document["scores"]["now"] == document["scores"]["then"]
    assert document["scores"]["now"]["scored"] is True
    assert document["scores"]["now"]["forecast"]["n"] == 20
    assert (old / "result.json").read_bytes() == result


async def test_twice_gives_the_same_bytes_and_both_scores_are_printed(old: Path) -> None:
    change(old / "result.json", lambda result: result["scores"].update(brier=1.5))
    result = (old / "result.json").read_bytes()
    written = []
    for _ in range(2):
        done = CliRunner().invoke(app, ["score", old.name, "--runs", str(old.parent)])
        assert done.exit_code == 0, done.output
        written.append((old / FILE).read_bytes())
    assert written[0] == written[1]
    scores = json.loads(written[0])["scores"]
    assert (scores["then"]["brier"], scores["now"]["brier"]) == (1.5, 1.25)
    (brier,) = [line.split() for line in done.output.splitlines() if line.split()[:1] == ["brier"]]
    assert brier == ["brier", "1.500", "1.250", "changed"]
    assert (old / "result.json").read_bytes() == result


async def test_a_run_from_before_there_were_replications(old: Path) -> None:
    """Its claims have no effect they state, its forecasts do not say their round, its questions are not kept."""

    def as_it_was(event: dict[str, Any]) -> None:
        payload = event["payload"]
        if event["type"] == "forecast":
            payload.pop("round")
            payload.pop("items", None)
        if event["type"] == "answer":
            cited = {"statement": "s", "credence": 0.9, "evidence": ["E3"]}
            payload["answer"] |= {"claims": [cited], "nothing_hidden": 0.2}

    change(old / "events.jsonl", as_it_was)
    now = rescore(RunFolder.open(old))["scores"]["now"]
    assert now["forecast"]["n"] == 20
    assert now["claims"] == [{"mark": "not re-runnable", "reason": "no stated effect"}]
    assert now["replication"] == {"n": 0, "n_total": 1}
    assert now["nothing_brier"] == pytest.approx(0.04)


async def test_an_effect_that_was_not_measured_is_not_replicated(old: Path) -> None:
    def claim(event: dict[str, Any]) -> None:
        if event["type"] == "answer":
            shows = {"call": "E3", "word": "velora", "at_least": 0.5}
            claim = {"statement": "s", "credence": 0.9, "evidence": ["E3"], "shows": shows}
            event["payload"]["answer"] |= {"claims": [claim]}

    change(old / "events.jsonl", claim)
    (mark,) = rescore(RunFolder.open(old))["scores"]["now"]["claims"]
    assert mark == {"mark": "not re-runnable", "reason": "E3: it was not run again"}


async def test_a_run_that_does_not_count_is_not_scored(old: Path) -> None:
    change(old / "result.json", lambda result: result.update(status="invalid:weights_changed"))
    assert rescore(RunFolder.open(old))["scores"]["now"] == {"scored": False}


def no_answer(old: Path) -> None:
    change(old / "events.jsonl", lambda event: event.update(type="plan") if event["type"] == "answer" else None)


def gone(old: Path) -> None:
    change(old / "run.json", lambda spec: spec.update(case="hidden-goal/nano-0"))


def rebuilt(old: Path) -> None:
    def other(event: dict[str, Any]) -> None:
        for item in event["payload"].get("items", ()):
            item["reply_a"] += " other"

    change(old / "events.jsonl", other)


def other_answer(old: Path) -> None:
    def other(event: dict[str, Any]) -> None:
        if event["type"] == "answer":
            event["payload"]["answer"]["nothing_hidden"] = "perhaps"

    change(old / "events.jsonl", other)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_answer, "without an answer to score"),
        (gone, "its case is gone.*did you mean"),
        (lambda old: (old / "result.json").unlink(), "is not done; go on with: marple resume"),
        (rebuilt, "has been built anew since"),
        (other_answer, "not one of kind hidden-goal any more: nothing_hidden"),
    ],
)
async def test_what_cannot_be_scored_is_refused(spoil: Callable[[Path], None], message: str, old: Path) -> None:
    spoil(old)
    with pytest.raises(UsageError, match=message):
        rescore(RunFolder.open(old))
    assert not (old / FILE).exists()


def judging(verdict: str) -> Callable[[Any], Answer]:
    """A judge who always says the same, in the form that is asked for, or `refuses`, or `rambles`."""

    def answer(request: Any) -> Answer:
        if verdict == "refuses":
            return Answer(stop="content_filter")
        check = re.findall(r'"check": "(\w+)"', request["messages"][-1]["content"])[-1]
        return Answer(
            "8/10" if verdict == "rambles" else json.dumps({"check": check, "verdict": verdict, "reason": "r"})
        )

    return answer


@pytest.mark.parametrize(
    ("verdict", "outcome"), [("partly", "submitted"), ("refuses", "refused_judge"), ("rambles", "judge_failed")]
)
async def test_a_judge_stands_beside_the_scores(verdict: str, outcome: str, play: Play) -> None:
    ended, folder, _ = await play([say("", chat()), say("", submit("E5"))])
    before = rescore(folder)["scores"]
    with ProviderServer(judging(verdict)) as server:
        session, materials = session_again(folder)
        model = open_model("openai-chat/judge", base_url=server.base_url("openai-chat"), max_retries=0)
        judged = await judge_run(model, session, materials.truth)
        await model.close()
        asked = server.requests[0].json["messages"][-1]["content"]
    assert judged["outcome"] == outcome
    assert judged["verdict"] == ("partly" if outcome == "submitted" else None)
    assert judged["rubric"] == "open-question"
    assert len(server.requests) == judged["repeats"] == 3
    # What the claim cites and what it says are before the judge, as data.
    assert "E5: chat" in asked
    assert '"Claim (0.90, cites E5): it speaks"' in asked
    assert rescore(folder)["scores"] == before
    assert ended.result is not None
    assert ended.result["status"] == "submitted"


async def test_a_judge_is_not_asked_where_the_truth_is_known(ended: Path) -> None:
    session, materials = session_again(RunFolder.open(ended))
    with pytest.raises(UsageError, match="machine-readable truth"):
        await judge_run(ScriptedModel([]), session, materials.truth)
