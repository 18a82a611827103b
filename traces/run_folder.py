"""The run folder: everything a run leaves behind.

::

    runs/<id>/
        run.json            what was asked for; written first, never changed
        events.jsonl        what happened, one event a line (marple.traces.event)
        blobs/<sha256>      plots, tables, long outputs
        result.json         the outcome; written last by atomic rename: its presence means done
        lock                the process that writes the folder, while it does
        control.jsonl       what somebody outside wants of the run (marple.traces.control); optional
        events.torn-N.jsonl an incomplete last line that a resumed run moved aside
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from marple.errors import StorageError, TraceError, UsageError
from marple.traces import lock
from marple.traces.blobs import BlobStore
from marple.traces.documents import RunState, read_json, read_spec, state_of
from marple.traces.durable import storage_errors, sync_directory, write_atomic
from marple.traces.event import EVENT_TYPES, ROLES, SCHEMA_VERSION, Event, encode, to_json
from marple.traces.event_log import EventReader, EventWriter
from marple.traces.secrets import Scrubber

__all__ = ["RunFolder"]

_RUN_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


class RunFolder:
    """One run's folder; make one with ``create``, ``open`` or ``reopen``.

    A writer (``create``, ``reopen``) holds the folder's lock until ``close``; use it as a context manager.
    """

    def __init__(self, path: Path, *, log: EventReader | EventWriter, scrubber: Scrubber) -> None:
        """Not for callers: the class methods check the folder first."""
        self.path = path
        self.spec = read_spec(path)
        """``run.json``: what ``create`` was given, and ``schema_version``, ``run_id`` and ``created``."""
        self._log = log
        self._scrubber = scrubber
        self._blobs = BlobStore(path / "blobs")
        self._turn = threading.Lock()

    @classmethod
    def create(cls, root: Path, run_id: str, spec: Mapping[str, Any], *, secrets: Collection[str] = ()) -> Self:
        """Make ``root/run_id`` with its ``run.json`` and take its lock.

        Args:
            root: the runs folder; made when missing.
            run_id: the folder's name: letters, digits, ``.``, ``_`` and ``-``.
            spec: what the run is to do, JSON values.
            secrets: values that must never be written, such as API keys; ``[key removed]`` stands for them.

        Raises:
            UsageError: the id is not a folder name, or the folder exists.
            StorageError: the folder cannot be written.
            ValueError: ``spec`` is not JSON, or names another ``run_id`` or ``schema_version``.
        """
        if not _RUN_ID.fullmatch(run_id):
            raise UsageError(f"run id {run_id!r} must be letters, digits, '.', '_' and '-', at most 128")
        fixed = {"schema_version": SCHEMA_VERSION, "run_id": run_id}
        document = {**fixed, "created": time.time(), **spec}
        if not document.items() >= fixed.items():
            raise ValueError(f"the spec must not set other values than {fixed}")
        scrubber = Scrubber(secrets)
        text = scrubber.json(to_json(document))
        path = root / run_id
        _make_folder(path)
        try:
            lock.acquire(path / "lock")
            write_atomic(path / "run.json", text.encode())
            return cls(path, log=EventWriter(path / "events.jsonl"), scrubber=scrubber)
        except BaseException:
            _remove_folder(path)
            raise

    @classmethod
    def open(cls, path: Path) -> Self:
        """Read a run folder, running or not.

        Raises:
            CorruptTraceError: not a run folder, or written by a newer Marple.
        """
        return cls(path, log=EventReader(path / "events.jsonl"), scrubber=Scrubber())

    @classmethod
    def reopen(cls, path: Path, *, secrets: Collection[str] = ()) -> Self:
        """Go on writing a run folder: takes the lock (a dead holder's too), moves a torn last line aside.

        Raises:
            UsageError: a live process holds the lock.
            CorruptTraceError: the folder cannot be read.
            StorageError: it cannot be written.
        """
        read_spec(path)
        lock.acquire(path / "lock")
        try:
            return cls(path, log=EventWriter(path / "events.jsonl"), scrubber=Scrubber(secrets))
        except BaseException:
            lock.release(path / "lock")
            raise

    @property
    def run_id(self) -> str:
        """The run's id, also when its folder was renamed."""
        return str(self.spec["run_id"])

    @property
    def status(self) -> RunState:
        """``done`` with a result, ``running`` while a live process writes it, else ``interrupted``."""
        return state_of(self.path)

    @property
    def torn(self) -> str | None:
        """What a crash left incomplete at the end of the log, for a person to read; None when whole."""
        if isinstance(self._log, EventReader):
            self._log.refresh()
        return self._log.torn

    def events(self) -> list[Event]:
        """The events so far, in order; a reader sees those a running writer has added since.

        Raises:
            CorruptTraceError: a line that is not the last is not an event; names the line.
        """
        if isinstance(self._log, EventReader):
            self._log.refresh()
        return list(self._log.events)

    def next_event_id(self) -> str:
        """The id that the next appended event gets."""
        if isinstance(self._log, EventReader):
            self._log.refresh()
        return f"E{len(self._log.events) + 1}"

    def append(
        self,
        type: str,
        payload: Mapping[str, Any],
        *,
        role: str = "harness",
        parent: str | None = None,
        span: str | None = None,
        seconds: float | None = None,
    ) -> Event:
        """Write one event; when this returns, the event is on disk.

        Args:
            type: one of ``EVENT_TYPES``; the first must be ``run_start`` (its ``schema_version`` is put in).
            payload: JSON values.
            role: one of ``ROLES``.
            parent: id of the event that caused this one.
            span: name of the stretch of work it belongs to.
            seconds: how long the thing took.

        Returns:
            The event as readers will see it: secrets removed, tuples as lists.

        Raises:
            StorageError: the disk refused it; the log is as it was before.
            ValueError: an unknown type or role, a payload that is not JSON, or a first event of another type.
        """
        if type not in EVENT_TYPES or role not in ROLES:
            raise ValueError(f"event type {type!r} or role {role!r} is not in {EVENT_TYPES} or {ROLES}")
        log = self._writer()
        with self._turn:
            if not log.events:
                if type != "run_start":
                    raise ValueError(f"the first event must be 'run_start', not {type!r}")
                payload = {"schema_version": SCHEMA_VERSION, **payload}
            event = Event(f"E{len(log.events) + 1}", time.time(), type, role, span, parent, seconds, dict(payload))
            return log.append(self._scrubber.json(encode(event)))

    def put_blob(self, data: bytes, media_type: str) -> str:
        """Store a blob once; returns its reference ``sha256:<hex>``, to be put into an event.

        Raises:
            StorageError: the disk refused it.
        """
        self._writer()
        with self._turn:
            return self._blobs.put(self._scrubber.data(data), media_type)

    def get_blob(self, ref: str) -> bytes:
        """The bytes behind a reference.

        Raises:
            CorruptTraceError: no such blob, or its bytes have changed.
        """
        return self._blobs.get(ref)

    def blob_type(self, ref: str) -> str:
        """The media type a blob was stored with."""
        return self._blobs.media_type(ref)

    @property
    def result(self) -> dict[str, Any] | None:
        """The content of ``result.json``, or None before the run is done.

        Raises:
            CorruptTraceError: the file is not a JSON object.
        """
        path = self.path / "result.json"
        return read_json(path) if path.exists() else None

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Write ``result.json`` (last: it marks the run as done); replaces an earlier one whole.

        Raises:
            StorageError: the disk refused it; the run is not done.
            ValueError: ``result`` is not JSON.
        """
        self._writer()
        text = self._scrubber.json(to_json({"schema_version": SCHEMA_VERSION, **result}))
        with self._turn:
            write_atomic(self.path / "result.json", text.encode())

    def close(self) -> None:
        """Give the lock back; reading goes on to work, writing raises ``TraceError``."""
        if isinstance(self._log, EventWriter):
            self._log.close()
            lock.release(self.path / "lock")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _writer(self) -> EventWriter:
        if isinstance(self._log, EventReader):
            raise TraceError(f"{self.path} is open for reading only; RunFolder.reopen opens it for writing")
        if self._log.closed:
            raise TraceError(f"{self.path} is closed")
        return self._log


def _make_folder(path: Path) -> None:
    try:
        with storage_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir()
            sync_directory(path.parent)
    except StorageError as error:
        if isinstance(error.__cause__, FileExistsError) and path.is_dir():
            raise UsageError(f"the run folder {path} exists; choose another run id, or resume it") from error
        raise


def _remove_folder(path: Path) -> None:
    """Take a folder that never became a run away again; what cannot be removed stays."""
    with suppress(OSError):
        for child in path.iterdir():
            child.unlink()
        path.rmdir()
