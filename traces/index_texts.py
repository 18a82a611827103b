"""What of a run can be searched: the strings of its events, of the data behind them, and people's comments."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from marple.errors import TraceError
from marple.traces.blobs import BlobStore
from marple.traces.event import Event
from marple.traces.event_log import EventReader
from marple.traces.labels import read_labels

__all__ = ["texts_of"]

_MOST = 48_000
"""Characters of one event that can be searched."""
_DATA = 16_000
"""Of these, how many from data that is kept in blobs."""
_LARGEST_BLOB = 4 * 2**20
_PLUMBING = frozenset({"call_start", "worker_start"})
_UNSAID = frozenset({"native", "nonce", "sandbox", "request_id", "call_id", "schema_version", "traceback", "stamp"})
_MARKS = str.maketrans({"\x02": " ", "\x03": " ", "\0": " "})


def texts_of(run: Path) -> Iterator[tuple[str, str, str]]:
    """Text, event id and event type, for everything in the run folder ``run`` that can be read."""
    reader = EventReader(run / "events.jsonl")
    with contextlib.suppress(TraceError):  # what stands before a broken line was read
        reader.refresh()
    blobs = BlobStore(run / "blobs")
    for event in reader.events:
        if event.type not in _PLUMBING:
            body = _clean(_joined(_strings(event.payload), _MOST - _DATA) + " " + _data(event, blobs))
            if body.strip():
                yield body, event.id, _clean(event.type)
    for label in read_labels(run):
        yield _clean(f"{label.label} {label.comment}"), _clean(label.event or ""), "label"


def _data(event: Event, blobs: BlobStore) -> str:
    ref = event.payload.get("data_ref")
    if not isinstance(ref, str):
        return ""
    try:
        data = blobs.get(ref)
        return _joined(_strings(json.loads(data)), _DATA) if len(data) <= _LARGEST_BLOB else ""
    except (TraceError, ValueError, RecursionError):
        return ""


def _joined(strings: Iterator[str], most: int) -> str:
    """The distinct strings in their order, up to ``most`` characters."""
    said: dict[str, None] = {}
    room = most
    for string in strings:
        if string not in said:
            said[string[:room]] = None
            room -= len(string) + 1
            if room <= 0:
                break
    return "\n".join(said)


def _strings(value: Any) -> Iterator[str]:
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, str):
            yield one
        elif isinstance(one, Mapping):
            waiting += [
                item for key, item in reversed(list(one.items())) if key not in _UNSAID and not key.endswith("ref")
            ]
        elif isinstance(one, list):
            waiting += reversed(one)


def _clean(text: str) -> str:
    return text.translate(_MARKS).encode(errors="replace").decode()
