"""The folder of an evaluation.

::

    DIR/
        evaluation.json   the plan with its criteria; written before the first run, never changed
        samples.jsonl     which run plays which sample, and how it ended
        runs/<id>/        ordinary run folders
        lock              the process that plays it, while it does
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marple.agent.evaluation.collecting import completed, row_of
from marple.agent.evaluation.plan import SCHEMA_VERSION, Plan
from marple.agent.evaluation.rows import Row
from marple.agent.evaluation.sample_log import FILE, SampleLog
from marple.agent.evaluation.samples import Sample
from marple.errors import CorruptTraceError, TraceError, UsageError
from marple.traces import RunFolder, lock
from marple.traces.durable import storage_errors, write_atomic

__all__ = ["DOCUMENT", "EvaluationFolder", "rows_in"]

DOCUMENT = "evaluation.json"
_BUT_OURS = {"lock", f".{DOCUMENT}.tmp"}


class EvaluationFolder:
    """An evaluation on disk."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def runs(self) -> Path:
        """Where the run folders lie."""
        return self.path / "runs"

    @property
    def exists(self) -> bool:
        """Whether an evaluation was begun here."""
        return (self.path / DOCUMENT).is_file()

    def document(self) -> dict[str, Any]:
        """The content of ``evaluation.json``.

        Raises:
            UsageError: there is no evaluation here.
            CorruptTraceError: it cannot be read, or a newer Marple wrote it.
        """
        if not self.exists:
            raise UsageError(f"{self.path} is no folder of an evaluation: it has no {DOCUMENT}")
        try:
            said = json.loads((self.path / DOCUMENT).read_bytes())
        except (OSError, ValueError) as error:
            raise CorruptTraceError(f"{self.path / DOCUMENT} cannot be read: {error}") from error
        if not isinstance(said, dict) or said.get("schema_version") != SCHEMA_VERSION:
            raise CorruptTraceError(f"{self.path / DOCUMENT} is of another version than {SCHEMA_VERSION}")
        return said

    def plan(self) -> Plan:
        """The plan that the folder was begun with; raises what `document` does."""
        return Plan.from_document(self.document())

    def log(self) -> SampleLog:
        """The log of its samples."""
        return SampleLog(self.path / FILE)

    def check(self, plan: Plan) -> None:
        """Refuse a folder that is not this plan's; nothing is written.

        Raises:
            UsageError: it is a file, holds something else, or was begun with another plan; says what differs and the
                way out.
        """
        if self.path.exists() and not self.path.is_dir():
            raise UsageError(f"--out {self.path} is a file; name a folder, which is made where it is missing")
        if not self.exists:
            there = sorted(one.name for one in self.path.iterdir()) if self.path.is_dir() else []
            foreign = [name for name in there if name not in _BUT_OURS]
            if foreign:
                raise UsageError(
                    f"--out {self.path} holds something else ({', '.join(foreign[:3])}) and no evaluation; name a new "
                    "or empty folder"
                )
            return
        changed = plan.differences(self.plan())
        if changed:
            listed = "".join(f"\n  {one}" for one in changed[:12])
            more = f"\n  and {len(changed) - 12} more" if len(changed) > 12 else ""
            raise UsageError(
                f"{self.path} was begun with another plan, and samples of two plans make no table:{listed}{more}\n"
                "Give the options it was begun with to finish it, or another --out for the new plan"
            )

    @contextmanager
    def held(self, plan: Plan) -> Iterator[None]:
        """Make the folder, keep other processes out, and fix the plan.

        Raises:
            UsageError: another process plays it, or as for `check`.
            StorageError: it cannot be written.
        """
        self.check(plan)
        with storage_errors(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
        lock.acquire(self.path / "lock")
        try:
            if not self.exists:
                text = json.dumps(plan.to_document(), indent=1, ensure_ascii=False)
                write_atomic(self.path / DOCUMENT, f"{text}\n".encode())
            with storage_errors(self.runs):
                self.runs.mkdir(exist_ok=True)
            yield
        finally:
            lock.release(self.path / "lock")


_ROUNDS = ("forecast", "fires")
"""Scores of the rounds of forecasts."""


def rows_in(path: Path) -> list[Row]:
    """A row for every sample of an evaluation, whether it was scored, failed, or was not run.

    Args:
        path: the evaluation's folder.

    Raises:
        UsageError: it is none.
        CorruptTraceError: it cannot be read.
    """
    folder = EvaluationFolder(path)
    plan, log = folder.plan(), folder.log()
    return completed(_row(folder, sample, log) for sample in plan.samples())


def _row(folder: EvaluationFolder, sample: Sample, log: SampleLog) -> Row:
    state = log.states.get(sample.key)
    status, error, run, result = "not_run", "it was not started", "", None
    if state is not None:
        run, result = f"runs/{state.run_id}", _result(folder.runs / state.run_id)
        status, error = ("interrupted", "it has no result yet")
        if state.end is not None:
            status, error = state.end.status, state.end.error
        if result is not None:
            status = str(result["status"])
    return row_of(
        key=sample.key,
        arm=sample.arm.name,
        case=sample.case,
        kind=sample.kind,
        organism=sample.organism,
        epoch=sample.epoch,
        seed=sample.seed,
        result=result,
        status=status,
        error=error if result is None or not result["scores"].get("scored") else "",
        run=run,
    )


def _result(path: Path) -> dict[str, Any] | None:
    """A run's result, with the ``probabilities`` beside the ``outcomes`` of its forecasts, which its events have."""
    try:
        folder = RunFolder.open(path)
        result = folder.result
        scores = (result or {}).get("scores") or {}
        if any("outcomes" in (scores.get(name) or {}) for name in _ROUNDS):
            for event in folder.events():
                if event.type == "forecast" and "probabilities" in event.payload:
                    name = "forecast" if event.payload.get("round", "replies") == "replies" else "fires"
                    scores.setdefault(name, {})["probabilities"] = list(event.payload["probabilities"])
        return result
    except TraceError:
        return None
