"""Playing one sample: whatever happens in it becomes its typed end, and no other sample hears of it."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marple.agent.benches import Benches
from marple.agent.draining import Drain
from marple.agent.evaluation.executor import Hear, Update
from marple.agent.evaluation.samples import Job, SampleEnd, config_of
from marple.agent.run import RunOutcome, Watcher, launch, resume
from marple.agent.session import CallProgress
from marple.errors import CorruptTraceError, MarpleError, MissingKeyError, StorageError
from marple.tasks.outcome import is_scored, outcome
from marple.traces import Event, RunFolder

if TYPE_CHECKING:
    from marple.tasks.organisms import Progress

__all__ = ["play_sample"]

_REFUSED_KEY = (401, 402, 403)
"""HTTP statuses that every further request of the arm would get too."""


async def play_sample(job: Job, benches: Benches, *, hear: Hear | None = None, drain: Drain | None = None) -> SampleEnd:
    """Play a sample, or go on with its run where that was interrupted.

    Args:
        job: the sample and its run folder.
        benches: gives its workbenches.
        hear: told of every step.
        drain: asks it to stop at the next step.

    Returns:
        How it ended. Only cancellation is raised.
    """
    try:
        return _ended(job, await _play(job, benches, hear, drain))
    except asyncio.CancelledError:
        raise
    except StorageError as error:
        return _unfinished(job, error, ends_all=str(error))
    except MissingKeyError as error:
        return _unfinished(job, error, ends_arm=str(error))
    except MarpleError as error:
        return _unfinished(job, error)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        return _unfinished(job, error, place=f" at {Path(where.filename).name}:{where.lineno}")


async def _play(job: Job, benches: Benches, hear: Hear | None, drain: Drain | None) -> RunOutcome:
    path = Path(job.runs) / job.run_id
    watcher = _StepWatcher(job, hear)
    if (path / "run.json").exists():
        return await resume(path, watcher=watcher, benches=benches, drain=drain)
    # A process that was killed while it made the folder leaves at most its lock.
    if path.is_dir() and {file.name for file in path.iterdir()} <= {"lock", ".run.json.tmp"}:
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    sample = job.sample
    part_of = {"arm": sample.arm.name, "epoch": sample.epoch, "sample": sample.key}
    return await launch(
        config_of(job), watcher=watcher, benches=benches, drain=drain, run_id=job.run_id, part_of=part_of
    )


def _ended(job: Job, played: RunOutcome) -> SampleEnd:
    result = played.result
    if result is None:
        return SampleEnd(job.sample.key, job.run_id, "interrupted", finished=False, error="asked to stop")
    scored = is_scored(played.status, answered=bool(result["answer"]))
    failure = {} if scored else _failure(played.path)
    refused = failure.get("where") == "model_call" and failure.get("status") in _REFUSED_KEY
    message = str(failure.get("message", ""))
    return SampleEnd(
        job.sample.key,
        job.run_id,
        played.status,
        finished=True,
        scored=scored,
        error=message[:300],
        usage=result["usage"],
        ends_arm=message[:300] if refused else "",
    )


def _failure(path: Path) -> Mapping[str, Any]:
    """The last failure that a run recorded."""
    try:
        failed = [event.payload for event in RunFolder.open(path).events() if event.type == "error"]
    except CorruptTraceError:
        return {}
    return failed[-1] if failed else {}


def _unfinished(job: Job, error: Exception, *, place: str = "", ends_arm: str = "", ends_all: str = "") -> SampleEnd:
    said = f"{type(error).__name__}: {error}"[:300] + place
    return SampleEnd(
        job.sample.key, job.run_id, outcome("error"), False, error=said, ends_arm=ends_arm, ends_all=ends_all
    )


class _StepWatcher(Watcher):
    """Tells of the run's last step in one line."""

    def __init__(self, job: Job, hear: Hear | None) -> None:
        self._job = job
        self._hear = hear

    def on_event(self, event: Event) -> None:
        """A call, or a stage of the run."""
        if event.type == "call_start" and "tool" in event.payload:
            self._tell(str(event.payload["tool"]))
        elif event.type in ("run_start", "run_resume", "answer", "forecast", "replication", "trial", "run_end"):
            self._tell(event.type.replace("_", " "))

    def on_call(self, call: CallProgress) -> None:
        """How far a call is."""
        self._tell(f"{call.tool} {call.done}/{call.total} {call.what}")

    def progress(self) -> Progress | None:
        """The stages of a build."""
        return _Stages(self)

    def _tell(self, text: str) -> None:
        if self._hear is not None:
            self._hear(Update(self._job, "step", text))


class _Stages:
    def __init__(self, watcher: _StepWatcher) -> None:
        self._watcher = watcher

    def stage(self, name: str, total: int) -> None:
        """Tell of the stage."""
        self._watcher._tell(f"building {name}")

    def advance(self, done: int, note: str = "") -> None:
        """Nothing to tell."""
