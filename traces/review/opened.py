"""A run folder opened for a page: whatever of it can be read, and what cannot, in words."""

from __future__ import annotations

import functools
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from marple.errors import TraceError
from marple.traces.blobs import BlobStore
from marple.traces.documents import holds, read_json, state_of
from marple.traces.event import Event
from marple.traces.event_log import EventReader
from marple.traces.labels import Label, read_labels
from marple.traces.review.fields import items, mapping, text

__all__ = ["Opened", "RunShelf"]

_KEPT = 8
_LARGEST_DATA = 16 * 2**20
"""Bytes of a blob that a page still reads as data."""


@dataclass
class Opened:
    """One run at one moment."""

    path: Path
    spec: Mapping[str, Any]
    events: Sequence[Event]
    result: Mapping[str, Any] | None
    state: str
    """``running``, ``done`` or ``interrupted``."""
    problems: Sequence[str]
    """What could not be read, one sentence each."""
    labels: Sequence[Label] = field(default_factory=list)
    memo: dict[str, Any] = field(default_factory=dict)
    """What was made of this run at this moment, to be had again for nothing."""

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.path.name

    @property
    def paused(self) -> bool:
        """Whether the process that plays it holds it between two steps."""
        return self.state == "running" and holds(self.events[-1] if self.events else None)

    @property
    def case(self) -> str:
        """Id of the case; the folder's name where that is not known."""
        return text(self.spec.get("case")) or self.name

    @property
    def arm(self) -> str:
        """The investigator."""
        return text(self.spec.get("investigator")) or "?"

    @property
    def model(self) -> str:
        """Its model; '' where it has none."""
        return text(self.spec.get("model"))

    @property
    def seed(self) -> str:
        """The run's seed."""
        return str(self.spec.get("seed", "–"))[:20]

    @functools.cached_property
    def by_id(self) -> Mapping[str, Event]:
        """The events by their ids."""
        return {event.id: event for event in self.events}

    def of_type(self, *types: str) -> list[Event]:
        """The events of some types, in order."""
        return [event for event in self.events if event.type in types]

    @functools.cached_property
    def cited_by(self) -> Mapping[str, Sequence[tuple[str, str]]]:
        """For each event the ids of those that refer to it, each with a word on how."""
        found: dict[str, list[tuple[str, str]]] = {}

        def note(wanted: object, event: Event, how: str) -> None:
            if isinstance(wanted, str) and wanted != event.id and (event.id, how) not in found.setdefault(wanted, []):
                found[wanted].append((event.id, how))

        for event in self.events:
            said = event.payload
            if event.type == "hypothesis":
                for one in items(said.get("evidence")):
                    note(one, event, f"{text(said.get('id')) or 'a hypothesis'} rests on it")
            elif event.type == "measurement":
                note(said.get("experiment"), event, "outcome of a prediction")
                note(said.get("prediction"), event, "its outcome")
            elif event.type == "replication":
                note(said.get("call"), event, "made again")
            elif event.type == "answer":
                for number, claim in enumerate(items(mapping(said.get("answer")).get("claims")), start=1):
                    for one in items(mapping(claim).get("evidence")):
                        note(one, event, f"claim {number} rests on it")
        return found

    def blob(self, ref: object) -> bytes | None:
        """The bytes behind a reference, or None where they are missing or have changed."""
        try:
            return self.blobs.get(ref) if isinstance(ref, str) else None
        except TraceError:
            return None

    @property
    def blobs(self) -> BlobStore:
        """Where plots and long outputs lie."""
        return BlobStore(self.path / "blobs")

    def part(self, event: Event, name: str) -> Mapping[str, Any]:
        """A tool call's ``data`` or ``controls``, from the event or from its blob; empty where there is none."""
        said = event.payload
        if f"{name}_ref" not in said:
            return mapping(said.get(name))
        data = self.blob(said[f"{name}_ref"])
        if data is None or len(data) > _LARGEST_DATA:
            return {}
        try:
            return mapping(json.loads(data))
        except (ValueError, RecursionError):
            return {}


class RunShelf:
    """Opens runs; the logs of the last few are kept, so that only what is new is read again."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._turn = threading.Lock()
        self._readers: OrderedDict[str, tuple[EventReader, threading.Lock]] = OrderedDict()
        self._memos: dict[str, tuple[tuple[int, str, int], dict[str, Any]]] = {}

    def path(self, name: str) -> Path | None:
        """The folder of that name, or None."""
        if not name or name.startswith(".") or "/" in name or "\0" in name or len(name) > 255:
            return None
        path = self.root / name
        return path if path.is_dir() else None

    def open(self, name: str) -> Opened | None:
        """The run of that folder name; None where there is no such folder.

        Raises:
            CorruptTraceError: it is no run folder, or a newer Marple wrote it.
        """
        path = self.path(name)
        if path is None:
            return None
        spec = read_json(path / "run.json")
        state, problems, result = state_of(path), [], None
        if state == "done":
            try:
                result = read_json(path / "result.json")
            except TraceError as error:
                problems.append(f"The result cannot be read: {error}")
        events, said = self._events(path)
        memo = self._memo(name, (len(events), state, len(problems)))
        return Opened(path, spec, events, result, state, [*problems, *said], read_labels(path), memo)

    def _memo(self, name: str, moment: tuple[int, str, int]) -> dict[str, Any]:
        with self._turn:
            if self._memos.get(name, (None, {}))[0] != moment:
                self._memos[name] = (moment, {})
            memo = self._memos[name][1]
            for old in self._memos.keys() - self._readers.keys():
                del self._memos[old]
            return memo

    def _events(self, path: Path) -> tuple[list[Event], list[str]]:
        reader, turn = self._reader(path)
        with turn:
            try:
                reader.refresh()
            except TraceError as error:
                reader.tail = b""
                return list(reader.events), [f"The log cannot be read beyond E{len(reader.events)}: {error}"]
            return list(reader.events), [f"{reader.torn[0].upper()}{reader.torn[1:]}."] if reader.torn else []

    def _reader(self, path: Path) -> tuple[EventReader, threading.Lock]:
        with self._turn:
            found = self._readers.pop(path.name, None) or (EventReader(path / "events.jsonl"), threading.Lock())
            self._readers[path.name] = found
            while len(self._readers) > _KEPT:
                self._readers.popitem(last=False)
            return found
