"""What somebody outside wants of a run: a small append-only file in its folder, which the process that plays it reads.

``control.jsonl`` has one request a line: ``ts`` (seconds since the epoch), ``wanted`` and, where it was said, ``by``.
The last request counts; but ``cancel`` is final. A line that is torn or cannot be read counts as not asked for, so
that half a word never ends a run. The process looks between two steps, and for ``cancel`` also during one.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from marple.errors import CorruptTraceError, UsageError
from marple.traces.documents import read_spec
from marple.traces.durable import storage_errors, write_all
from marple.traces.event import to_json

__all__ = ["CONTROL_FILE", "Request", "Wanted", "latest", "request", "requests", "wanted"]

CONTROL_FILE = "control.jsonl"

Wanted = Literal["go", "pause", "cancel"]

_LONGEST_NAME = 200
"""Characters of ``by`` that are kept."""

_LATEST = 1e12
"""No time, in seconds since the epoch, is later."""


@dataclass(frozen=True)
class Request:
    """One line of the file."""

    ts: float
    """When it was asked for, in seconds since the epoch."""
    wanted: Wanted
    by: str | None = None
    """Who or what asked, as it says of itself."""


def request(run_path: Path, wanted: Wanted, *, by: str | None = None) -> Request:
    """Ask for something; when this returns, the request is on disk.

    Args:
        run_path: the run folder; another process, or none, may be playing it.
        wanted: ``pause`` holds the run between two steps, ``go`` lets it go on, ``cancel`` ends it for good.
        by: who asks; kept with the request and in the run's events.

    Raises:
        ValueError: ``wanted`` is none of the three.
        UsageError: the run is done, or it is to be cancelled, which nothing takes back.
        CorruptTraceError: there is no run folder, or a newer Marple wrote it.
        StorageError: the disk refused it.
    """
    if wanted not in get_args(Wanted):
        raise ValueError(f"{wanted!r} is not one of {get_args(Wanted)}")
    read_spec(run_path)
    if (run_path / "result.json").exists():
        raise UsageError(f"the run {run_path.name} is done; nothing can be asked of it any more")
    path = run_path / CONTROL_FILE
    with storage_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            before = _counting(requests(run_path))
            if before is not None and before.wanted == "cancel" != wanted:
                raise UsageError(f"the run {run_path.name} is to be cancelled; nothing takes that back")
            asked = Request(time.time(), wanted, None if by is None else by[:_LONGEST_NAME])
            write_all(fd, _whole_line(fd, asked))
            os.fsync(fd)
        finally:
            os.close(fd)
    return asked


def wanted(run_path: Path) -> Wanted:
    """What is wanted of the run now; ``go`` where nobody has asked for anything.

    Raises:
        CorruptTraceError: the file cannot be read.
    """
    asked = latest(run_path)
    return "go" if asked is None else asked.wanted


def latest(run_path: Path) -> Request | None:
    """The request that counts: the first ``cancel``, else the last; None where there is none.

    Raises:
        CorruptTraceError: the file cannot be read.
    """
    return _counting(requests(run_path))


def requests(run_path: Path) -> list[Request]:
    """All requests in order; lines that are torn or unknown are left out.

    Raises:
        CorruptTraceError: the file cannot be read.
    """
    path = run_path / CONTROL_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise CorruptTraceError(f"cannot read {path}: {error.strerror}") from error
    # What follows the last line feed is being written or was cut short.
    return [asked for line in data.split(b"\n")[:-1] if (asked := _parse(line)) is not None]


def _counting(asked: list[Request]) -> Request | None:
    final = next((one for one in asked if one.wanted == "cancel"), None)
    return final or (asked[-1] if asked else None)


def _whole_line(fd: int, asked: Request) -> bytes:
    """The request's line; a line cut short before it is ended so that it can never be read as a request."""
    size = os.fstat(fd).st_size
    torn = size > 0 and os.pread(fd, 1, size - 1) != b"\n"
    fields = {"ts": asked.ts, "wanted": asked.wanted, **({} if asked.by is None else {"by": asked.by})}
    return (b" torn\n" if torn else b"") + to_json(fields).encode() + b"\n"


def _parse(line: bytes) -> Request | None:
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    ts: Any = fields.get("ts")
    wanted: Any = fields.get("wanted")
    by: Any = fields.get("by")
    # Anything else than a time would be refused when the request is copied into an event.
    timed = isinstance(ts, int | float) and not isinstance(ts, bool) and 0 <= ts <= _LATEST
    if not timed or wanted not in get_args(Wanted):
        return None
    return Request(float(ts), wanted, by if isinstance(by, str) else None)
