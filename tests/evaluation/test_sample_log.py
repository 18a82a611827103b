"""The log of samples: what is on disk counts, and half a line does not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from marple.agent.evaluation.plan import Plan
from marple.agent.evaluation.queue import SampleQueue, without_finished
from marple.agent.evaluation.sample_log import SampleLog
from marple.agent.evaluation.samples import SampleEnd
from marple.agent.evaluation.totals import TotalBudget
from marple.errors import CorruptTraceError

PlanOf = Callable[..., Plan]


@pytest.fixture
def plan(plan_of: PlanOf) -> Plan:
    return plan_of("prior", cases=("nano-03", "nano-07"), epochs=2)


def queue_of(plan: Plan, log: SampleLog, *, retry_errors: bool = False) -> SampleQueue:
    left = without_finished(plan.samples(), log, retry_errors=retry_errors)
    return SampleQueue(left, log=log, runs=log.path.parent / "runs", budget=TotalBudget())


def opened(tmp_path: Path) -> SampleLog:
    log = SampleLog(tmp_path / "samples.jsonl")
    log.begin({})
    return log


def ended(key: str, run_id: str, status: str = "submitted", *, scored: bool = True) -> SampleEnd:
    return SampleEnd(key, run_id, status, finished=True, scored=scored, usage={"target_tokens": 10})


def test_a_killed_sample_is_gone_on_with_in_its_folder(plan: Plan, tmp_path: Path) -> None:
    log = opened(tmp_path)
    queue = queue_of(plan, log)
    first, second = queue.take((), more=True), queue.take((), more=True)
    assert first is not None
    assert second is not None
    queue.finish(ended(first.sample.key, first.run_id))
    log.close()  # and the process is gone

    log = opened(tmp_path)
    queue = queue_of(plan, log)
    jobs = [queue.take((), more=True) for _ in range(4)]
    assert [job.run_id for job in jobs if job] == [second.run_id, *(job.run_id for job in jobs[1:3] if job)]
    assert jobs[3] is None
    assert first.run_id not in {job.run_id for job in jobs if job}
    assert log.ends[0].usage == {"target_tokens": 10}


def test_half_a_line_is_taken_out_and_a_broken_one_is_told(plan: Plan, tmp_path: Path) -> None:
    log = opened(tmp_path)
    queue_of(plan, log).take((), more=True)
    log.close()
    path = tmp_path / "samples.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"what": "sta')
    log = opened(tmp_path)
    assert len(log.states) == 1
    log.close()
    assert path.read_bytes().startswith(whole + b'{"what": "command"')
    path.write_bytes(b'{"what": "start"}\n' + whole)
    with pytest.raises(CorruptTraceError, match="line 1"):
        SampleLog(path)


def test_what_the_arm_did_itself_is_never_tried_again(plan: Plan, tmp_path: Path) -> None:
    log = opened(tmp_path)
    queue = queue_of(plan, log)
    for status in ("refused_investigator", "target_never_called", "worker_died", "invalid:no_answer"):
        job = queue.take((), more=True)
        assert job is not None
        queue.finish(ended(job.sample.key, job.run_id, status, scored=False))
    again = without_finished(plan.samples(), log, retry_errors=True)
    assert len(again) == 1
    retried = queue_of(plan, log, retry_errors=True).take((), more=True)
    assert retried is not None
    state = log.states[retried.sample.key]
    assert state.superseded
    assert retried.run_id == f"{state.superseded[0]}.r1"


def test_a_target_that_is_held_comes_first(plan: Plan, tmp_path: Path) -> None:
    queue = queue_of(plan, opened(tmp_path))
    jobs = [queue.take({"nano-07"}, more=False) for _ in range(3)]
    assert [job.sample.organism for job in jobs if job] == ["nano-07", "nano-07"]
    assert queue.needs("nano-03")
    assert queue.take({"nano-07"}, more=False) is None
    last = queue.take({"nano-07"}, more=True)
    assert last is not None
    assert last.sample.organism == "nano-03"


def test_time_is_counted_over_commands(plan: Plan, tmp_path: Path) -> None:
    log = opened(tmp_path)
    job = queue_of(plan, log).take((), more=True)
    assert job is not None
    log.close()
    text = (tmp_path / "samples.jsonl").read_text()
    elapsed = text.rpartition('"elapsed": ')[2].split("}")[0]
    (tmp_path / "samples.jsonl").write_text(text.replace(f'"elapsed": {elapsed}', '"elapsed": 100.0'))
    assert opened(tmp_path).seconds == 100.0
    assert SampleLog(tmp_path / "samples.jsonl").seconds == 100.0
