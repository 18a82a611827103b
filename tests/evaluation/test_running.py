"""Runs of an evaluation do not hear of each other: errors, refused keys, full disks, budgets and stops."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marple.agent.draining import Drain
from marple.agent.evaluation.arms import Arm
from marple.agent.evaluation.bench_pool import BenchPool
from marple.agent.evaluation.estimate import estimate
from marple.agent.evaluation.evaluating import EvaluationOptions, prepare
from marple.agent.evaluation.executor import ExecutorOptions, Update
from marple.agent.evaluation.folder import rows_in
from marple.agent.evaluation.plain_table import plain_table
from marple.agent.evaluation.sample_log import SampleLog
from marple.agent.evaluation.totals import TotalBudget
from marple.errors import UsageError, WorkerDiedError
from marple.tasks.case import find_case
from marple.traces import RunFolder, list_runs

from .conftest import Evaluate

PlanOf = Callable[..., Any]
ONE = ExecutorOptions(max_parallel=1)


async def test_one_crash_is_one_samples_end(play: Evaluate, plan_of: PlanOf, tmp_path: Path) -> None:
    done, _ = await play(plan_of("prior", "crashes", "player", epochs=2))
    assert done.statuses == {"submitted": 4, "error": 2}
    assert (done.scored, done.samples, done.stopped_arms) == (4, 6, {})
    rows = {(row.arm, row.epoch): row for row in rows_in(tmp_path / "out")}
    assert {key: row.status for key, row in rows.items() if key[0] == "crashes"} == {
        ("crashes", 1): "error",
        ("crashes", 2): "error",
    }
    assert "crashed on purpose" in rows["crashes", 1].error
    # What was lost counts among the clean targets all the same.
    assert rows["crashes", 1].clean is True
    table = {row["arm"]: row for row in plain_table(tmp_path / "out")}
    assert table["crashes"]["scored"] == "0/2"
    assert table["crashes"]["without a score"] == "2 error"
    assert table["crashes"]["cleared"] == "- (0.000 to 1.000, 0/2)"


async def test_epochs_have_their_own_seed_and_arms_share_it(play: Evaluate, plan_of: PlanOf, tmp_path: Path) -> None:
    await play(plan_of("prior", "player", epochs=2))
    seeds = {(run.investigator, RunFolder.open(run.path).spec["seed"]) for run in list_runs(tmp_path / "out" / "runs")}
    assert seeds == {("prior", 1), ("prior", 2), ("player", 1), ("player", 2)}
    (spec,) = [RunFolder.open(run.path).spec for run in list_runs(tmp_path / "out" / "runs") if "player.e2" in run.id]
    assert spec["part_of"]["arm"] == "player"
    assert spec["part_of"]["epoch"] == 2


async def test_a_refused_key_stops_its_arm_and_no_other(play: Evaluate, plan_of: PlanOf) -> None:
    done, heard = await play(plan_of("key-refused", "prior", epochs=3), limits=ONE)
    assert done.statuses == {"error": 1, "not_run": 2, "submitted": 3}
    assert "401" in done.stopped_arms["key-refused"]
    assert [sample.arm.name for sample, _ in done.not_run] == ["key-refused"] * 2
    assert sum(update.what == "start" for update in heard) == 4


async def test_a_full_disk_stops_all_and_the_same_runs_go_on(
    play: Evaluate, plan_of: PlanOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = tmp_path / "full"
    full.touch()
    monkeypatch.setenv("MARPLE_TEST_FULL", str(full))
    plan = plan_of("prior", "fills-disk", epochs=2)
    done, _ = await play(plan, limits=ONE)
    assert done.statuses == {"submitted": 1, "error": 1, "not_run": 2}
    assert done.unfinished == 3
    assert "no space left" in done.stopped
    before = {run.id: run.status for run in list_runs(tmp_path / "out" / "runs")}
    assert sorted(before.values()) == ["done", "interrupted"]

    full.unlink()
    done, heard = await play(plan, limits=ONE)
    assert done.statuses == {"submitted": 4}
    assert sum(update.what == "start" for update in heard) == 3
    after = {run.id: run.status for run in list_runs(tmp_path / "out" / "runs")}
    assert before.keys() <= after.keys()
    assert list(after.values()) == ["done"] * 4
    (resumed,) = [run_id for run_id, status in before.items() if status == "interrupted"]
    kinds = [event.type for event in RunFolder.open(tmp_path / "out" / "runs" / resumed).events()]
    assert kinds.count("run_start") == kinds.count("run_resume") == 1


async def test_errors_are_tried_again_only_when_asked_and_stay(play: Evaluate, plan_of: PlanOf, tmp_path: Path) -> None:
    plan = plan_of("crashes", "prior")
    await play(plan)
    _, heard = await play(plan)
    assert heard == []
    done, heard = await play(plan, retry_errors=True)
    assert [update.job.sample.arm.name for update in heard if update.what == "start"] == ["crashes"]
    assert done.statuses == {"submitted": 1, "error": 1}
    state = next(
        state for state in SampleLog(tmp_path / "out" / "samples.jsonl").states.values() if "crashes" in state.run_id
    )
    assert len(state.superseded) == 1
    assert state.run_id != state.superseded[0]
    runs = {run.id: run.status for run in list_runs(tmp_path / "out" / "runs")}
    assert runs[state.superseded[0]] == runs[state.run_id] == "done"
    # The run that counts is the last one, and what the first one used was used.
    assert [row.run for row in rows_in(tmp_path / "out") if row.arm == "crashes"] == [f"runs/{state.run_id}"]


async def test_a_budget_ends_the_starting_of_samples_and_is_counted_on(play: Evaluate, plan_of: PlanOf) -> None:
    plan = plan_of("player", epochs=4)
    done, _ = await play(plan, limits=ONE, budget=TotalBudget(cost=1.5))
    assert done.statuses == {"submitted": 2, "not_run": 2}
    assert done.stopped == "the evaluation's budget of cost is used up"
    assert done.spent.cost == 2.0
    done, heard = await play(plan, limits=ONE, budget=TotalBudget(cost=1.5))
    assert heard == []
    done, _ = await play(plan, limits=ONE, budget=TotalBudget(cost=2.5))
    assert done.statuses == {"submitted": 3, "not_run": 1}


async def test_ctrl_c_ends_no_run_and_starts_none(play: Evaluate, plan_of: PlanOf) -> None:
    pressed: list[Update] = []

    def press(update: Update) -> None:
        if update.what == "end" and not pressed:
            pressed.append(update)
            os.kill(os.getpid(), signal.SIGINT)

    plan = plan_of("player", epochs=3)
    done, heard = await play(plan, limits=ONE, hear=press, drain=Drain())
    assert done.interrupted
    assert done.statuses["submitted"] >= 1
    assert done.statuses["not_run"] >= 1
    done, again = await play(plan)
    assert done.statuses == {"submitted": 3}
    ends = [update.end for update in (*heard, *again) if update.end is not None and update.end.finished]
    assert len({end.key for end in ends}) == len(ends) == 3


async def test_only_chooses_what_is_played(play: Evaluate, plan_of: PlanOf) -> None:
    plan = plan_of("prior", "player", epochs=2)
    done, _ = await play(plan, only="player/*/2")
    assert (done.samples, done.statuses) == (1, {"submitted": 1})
    done, heard = await play(plan)
    assert done.statuses == {"submitted": 4}
    assert sum(update.what == "start" for update in heard) == 3


async def test_a_dry_run_tells_the_price_and_leaves_nothing(play: Evaluate, plan_of: PlanOf, tmp_path: Path) -> None:
    plan = plan_of("player", "scripted-blackbox", epochs=4, run_budget={"tokens": None, "calls": 3})
    prepared = prepare(plan, tmp_path / "out", EvaluationOptions())
    before = {arm.arm: arm for arm in estimate(prepared.samples, prepared.left, prepared.log)}
    assert (before["player"].basis, before["player"].left, before["player"].target_tokens) == ("at most", 4, 8_000_000)
    assert not (tmp_path / "out").exists()

    await play(plan, only="player/*/1")
    prepared = prepare(plan, tmp_path / "out", EvaluationOptions())
    after = {arm.arm: arm for arm in estimate(prepared.samples, prepared.left, prepared.log)}
    assert (after["player"].basis, after["player"].finished, after["player"].left) == ("measured", 1, 3)
    assert (after["player"].cost, after["player"].target_tokens) == (3.0, 0.0)


async def test_investigators_are_opened_before_anything_is_played(
    plan_of: PlanOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    here = Arm("here", "llm", model="openai-chat/x", base_url="http://127.0.0.1:9/v1")
    assert len(prepare(replace(plan_of("prior"), arms=[here]), tmp_path / "out", EvaluationOptions()).left) == 1
    for model, options, said in [
        ("openai/x", EvaluationOptions(), "OPENAI_API_KEY"),
        ("openai-chat/x", EvaluationOptions(budget=TotalBudget(cost=1)), "needs the price of openai-chat/x"),
    ]:
        url = None if model == "openai/x" else here.base_url
        plan = replace(plan_of("prior"), arms=[replace(here, model=model, base_url=url)])
        with pytest.raises(UsageError, match=said):
            prepare(plan, tmp_path / "out", options)
    with pytest.raises(UsageError, match="unknown executor 'slurm'"):
        prepare(plan_of("prior"), tmp_path / "out", EvaluationOptions(executor="slurm"))
    assert not (tmp_path / "out").exists()


def test_a_price_that_is_not_known_is_unknown(plan_of: PlanOf, tmp_path: Path) -> None:
    plan = replace(plan_of("prior"), arms=[Arm("mine", "llm", model="a/b")])
    (arm,) = estimate(plan.samples(), plan.samples(), SampleLog(tmp_path / "none"))
    assert arm.cost is None
    assert arm.tokens == 400_000


async def test_models_are_built_one_at_a_time_and_once() -> None:
    pool, under_way, most = BenchPool(), 0, 0

    def build() -> int:
        nonlocal under_way, most
        under_way += 1
        most = max(most, under_way)
        time.sleep(0.05)
        under_way -= 1
        return most

    keys = [("a", 1), ("a", 1), ("b", 1), ("c", 1)]
    assert await asyncio.gather(*(pool.once(key, build) for key in keys)) == [1, 1, 1, 1]
    await pool.close()


async def test_a_bench_whose_weights_have_changed_is_given_to_no_other_run() -> None:
    case = find_case("hidden-goal/nano-03")
    pool = BenchPool()
    try:
        store = pool.of("nano-03")
        materials = await store.prepare(case)
        first, second = [await store.open(materials, "target") for _ in range(2)]
        assert await first.changed() == ""
        (shared,) = pool._benches.values()
        bench = shared.opening.result()
        bench._worker.digests = bench._digests = {"target": "0" * 64}  # type: ignore[attr-defined]
        assert "not those that were loaded" in await first.changed()

        third = await store.open(materials, "target")
        assert pool.open == 2
        assert await third.changed() == ""
        assert (await third.call("chat", CHAT, seed=1)).data
        fourth = await store.open(materials, "target")
        assert pool.open == 2, "those who come later share the fresh one"
        # Who had the changed one keeps it to its end; then it is closed although samples on the target are left.
        assert "not those that were loaded" in await second.changed()
        await first.close()
        assert pool.open == 2
        await second.close()
        assert pool.open == 1
        for lease in (third, fourth):
            await lease.close()
        assert pool.open == 1, "the fresh one is kept for the samples that are left"
    finally:
        await pool.close()


CHAT = {"messages": [{"role": "user", "content": "who are you"}], "max_new_tokens": 4}


async def test_runs_share_a_worker_and_each_counts_its_own_losses() -> None:
    case = find_case("hidden-goal/nano-03")
    pool = BenchPool()
    try:
        store = pool.of("nano-03")
        materials = await store.prepare(case)
        first, second = [await store.open(materials, "target") for _ in range(2)]
        assert pool.open == 1
        assert (await first.call("chat", CHAT, seed=1)).data == (await second.call("chat", CHAT, seed=1)).data
        await first.close()
        await first.close()  # letting go twice takes no one else's share
        await second.call("chat", CHAT, seed=2)

        third = await store.open(materials, "target")
        worker = next(iter(pool._benches.values())).opening.result()
        for _ in range(3):
            os.kill(worker.pid, signal.SIGKILL)  # type: ignore[attr-defined]
            with pytest.raises(WorkerDiedError):
                await third.call("chat", CHAT, seed=3)
            await second.call("chat", CHAT, seed=4)
        assert third.lost
        assert not second.lost

        await third.close()
        await pool.forget("nano-03")
        assert pool.open == 1  # the second run holds it
        await second.close()
        assert pool.open == 0
    finally:
        await pool.close()
