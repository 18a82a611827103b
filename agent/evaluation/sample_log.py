"""``samples.jsonl``: which run plays which sample and how it ended, one line each, appended and never changed.

A line counts once it is complete and synced; one that a crash cut short is taken out by the next writer. The runs
themselves are the truth: a run that ended unrecorded is found by its folder.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from marple.agent.evaluation.samples import Job, SampleEnd
from marple.errors import CorruptTraceError
from marple.traces.durable import storage_errors, sync_directory, write_all

__all__ = ["FILE", "SampleLog", "SampleState"]

FILE = "samples.jsonl"


@dataclass(frozen=True)
class SampleState:
    """How one sample stands."""

    run_id: str
    """Of the run that counts: the last one."""
    end: SampleEnd | None = None
    """None while it is being played, or when it was killed."""
    superseded: tuple[str, ...] = ()
    """Runs before it, whose errors were tried again."""

    @property
    def finished(self) -> bool:
        """Whether the run has a result."""
        return self.end is not None and self.end.finished


@dataclass
class _Read:
    states: dict[str, SampleState] = field(default_factory=dict)
    ends: list[SampleEnd] = field(default_factory=list)
    """Every end of a finished run, superseded ones included."""
    seconds: float = 0.0
    """Time of earlier commands, up to the last line of each."""
    size: int = 0
    elapsed: float = 0.0

    def take(self, line: Mapping[str, Any]) -> None:
        if line["what"] == "command":
            self.seconds, self.elapsed = self.seconds + self.elapsed, 0.0
            return
        self.elapsed = float(line["elapsed"])
        key, run_id = str(line["key"]), str(line["run"])
        known = self.states.get(key)
        if line["what"] == "start":
            if known is None:
                self.states[key] = SampleState(run_id)
            elif known.run_id != run_id:
                self.states[key] = SampleState(run_id, superseded=(*known.superseded, known.run_id))
            else:
                self.states[key] = replace(known, end=None)
        elif line["what"] == "end" and known is not None:
            end = SampleEnd(**line["end"])
            self.states[key] = replace(known, end=end)
            if end.finished:
                self.ends.append(end)


def _read(path: Path) -> _Read:
    read = _Read()
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return read
    except OSError as error:
        raise CorruptTraceError(f"cannot read {path}: {error.strerror}") from error
    *lines, tail = data.split(b"\n")
    for number, text in enumerate(lines, start=1):
        if b"\0" in text and number == len(lines) and not tail:
            break  # a power cut can leave zeros where the last line was to be
        try:
            read.take(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise CorruptTraceError(f"{path}: line {number} is no record of a sample: {error!r}") from error
        read.size += len(text) + 1
    return read


class SampleLog:
    """Reads the log, and appends to it after ``begin``."""

    def __init__(self, path: Path) -> None:
        """Read what is there.

        Raises:
            CorruptTraceError: a complete line is no record.
        """
        self.path = path
        read = _read(path)
        self.states, self.ends = read.states, read.ends
        self.seconds = read.seconds + read.elapsed
        """Wall time of earlier commands."""
        self._size = read.size
        self._fd: int | None = None
        self._began = time.monotonic()

    def begin(self, options: Mapping[str, Any]) -> None:
        """Open for appending and write down with which options a command goes on.

        Raises:
            StorageError: the disk refused it.
        """
        with storage_errors(self.path):
            self._fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            sync_directory(self.path.parent)
        self._began = time.monotonic()
        self._append({"what": "command", "at": time.time(), **options})

    @property
    def elapsed(self) -> float:
        """Seconds since ``begin``."""
        return time.monotonic() - self._began

    def started(self, job: Job) -> None:
        """A run is about to be started, or gone on with.

        Raises:
            StorageError: the disk refused it; it must not be started.
        """
        key = job.sample.key
        before = self.states.get(key)
        self._append({"what": "start", "key": key, "run": job.run_id, "sample": job.sample.name, **self._clock()})
        superseded: tuple[str, ...] = ()
        if before is not None:
            superseded = before.superseded if before.run_id == job.run_id else (*before.superseded, before.run_id)
        self.states[key] = SampleState(job.run_id, superseded=superseded)

    def ended(self, end: SampleEnd) -> None:
        """How it ended.

        Raises:
            StorageError: the disk refused it; next time the run's folder will tell.
        """
        self.states[end.key] = replace(self.states[end.key], end=end)
        if end.finished:
            self.ends.append(end)
        said = {**asdict(end), "usage": dict(end.usage)}
        self._append({"what": "end", "key": end.key, "run": end.run_id, "end": said, **self._clock()})

    def close(self) -> None:
        """Close the file."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _clock(self) -> dict[str, float]:
        return {"at": time.time(), "elapsed": round(self.elapsed, 3)}

    def _append(self, record: Mapping[str, Any]) -> None:
        assert self._fd is not None
        data = json.dumps(record, ensure_ascii=False).encode(errors="backslashreplace") + b"\n"
        with storage_errors(self.path):
            # What a crash or a full disk left behind an earlier line must not be glued to this one.
            if os.fstat(self._fd).st_size != self._size:
                os.ftruncate(self._fd, self._size)
            write_all(self._fd, data)
            os.fsync(self._fd)
        self._size += len(data)
