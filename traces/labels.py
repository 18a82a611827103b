"""People's labels and comments on a run, in its ``review.jsonl``: one JSON object a line, never changed.

A label is taken back by another line that names it in ``removes``. What cannot be read is left out and counted.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from marple.errors import StorageError, UsageError
from marple.traces.durable import storage_errors, write_all
from marple.traces.event import to_json

__all__ = ["FILE", "LABELS", "Label", "add_label", "read_labels", "remove_label"]

FILE = "review.jsonl"

LABELS = ("believe", "doubt", "wrong", "interesting", "tool problem", "task problem", "follow up")
"""What the review app offers; a label may be any short text."""

_LABEL_LENGTH = 60
_COMMENT_LENGTH = 20_000


@dataclass(frozen=True)
class Label:
    """One label or comment."""

    id: str
    ts: float
    """When, in seconds since the epoch."""
    by: str
    """Who; '' where nobody said."""
    event: str | None
    """The event it is about, such as ``E12``; None for the whole run."""
    label: str
    """'' for a comment alone."""
    comment: str

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)


def read_labels(run: Path) -> list[Label]:
    """The labels of the run folder ``run`` that stand, oldest first; none where it has no such file."""
    try:
        lines = (run / FILE).read_bytes().split(b"\n")[:-1]
    except OSError:
        return []
    found: dict[str, Label] = {}
    for line in lines:
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(fields, dict) and "removes" in fields:
            found.pop(str(fields["removes"]), None)
        elif isinstance(fields, dict) and isinstance(fields.get("id"), str):
            found[fields["id"]] = _label(fields)
    return list(found.values())


def add_label(run: Path, *, event: str | None = None, label: str = "", comment: str = "", by: str = "") -> Label:
    """Write a label or a comment.

    Raises:
        UsageError: there is neither, or one is too long.
        StorageError: the run folder is gone or cannot be written.
    """
    label, comment = " ".join(label.split()), comment.strip()
    if not label and not comment:
        raise UsageError("a label or a comment is needed; both were empty")
    if len(label) > _LABEL_LENGTH or len(comment) > _COMMENT_LENGTH or len(by) > _LABEL_LENGTH:
        raise UsageError(
            f"a label has at most {_LABEL_LENGTH} characters ({len(label)} given), "
            f"a comment at most {_COMMENT_LENGTH:,} ({len(comment):,} given)"
        )
    made = Label(secrets.token_hex(6), time.time(), by.strip(), event, label, comment)
    _append(run, made.to_dict())
    return made


def remove_label(run: Path, label_id: str) -> None:
    """Take a label back; its line stays.

    Raises:
        UsageError: no such label stands.
        StorageError: the run folder is gone or cannot be written.
    """
    if label_id not in {one.id for one in read_labels(run)}:
        raise UsageError(f"no label {label_id!r} stands in {run / FILE}")
    _append(run, {"removes": label_id, "ts": time.time()})


def _append(run: Path, fields: Mapping[str, Any]) -> None:
    if not (run / "run.json").exists():
        raise StorageError(f"the run folder {run} is gone or no run folder any more; nothing was written")
    line = to_json(fields).encode() + b"\n"
    path = run / FILE
    with storage_errors(path):
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            size = os.fstat(fd).st_size
            if size and os.pread(fd, 1, size - 1) != b"\n":
                line = b"\n" + line  # a line that a crash cut short must not swallow this one
            write_all(fd, line)
            os.fsync(fd)
        finally:
            os.close(fd)


def _label(fields: Mapping[str, Any]) -> Label:
    event = fields.get("event")
    ts = fields.get("ts")
    return Label(
        id=str(fields["id"]),
        ts=float(ts) if isinstance(ts, int | float) else 0.0,
        by=str(fields.get("by") or ""),
        event=event if isinstance(event, str) else None,
        label=str(fields.get("label") or ""),
        comment=str(fields.get("comment") or ""),
    )
