"""``events.jsonl``: the append-only file behind a run.

An event counts once its line is complete and synced. A line cut short by a crash was never acknowledged:
readers leave it out and say so, and the next writer moves it aside before it goes on.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from marple.errors import CorruptTraceError, TraceError
from marple.traces.durable import storage_errors, sync_directory, write_all, write_atomic
from marple.traces.event import Event, decode

__all__ = ["EventReader", "EventWriter", "last_event"]

_TAIL = 64 * 1024


class EventReader:
    """Reads a log that may still grow; each ``refresh`` reads only what is new."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.events: list[Event] = []
        self.size = 0
        """Bytes of complete lines read so far."""
        self.tail = b""
        """What follows the last complete line: a line cut short, or one being written."""

    def refresh(self) -> None:
        """Take in the lines added since the last call.

        Raises:
            CorruptTraceError: a complete line is not an event; names the line.
        """
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < self.size:
                    # The writer took back a line the disk had refused: what was read may not stand any more.
                    self.events, self.size = [], 0
                file.seek(self.size)
                data = file.read()
        except FileNotFoundError:
            data = b""
        except OSError as error:
            raise CorruptTraceError(f"cannot read {self.path}: {error.strerror}") from error
        *lines, self.tail = data.split(b"\n")
        if lines and not self.tail and b"\0" in lines[-1]:
            # A power cut can leave zeros where the last line was to be; JSON never holds that byte.
            self.tail = lines.pop() + b"\n"
        for line in lines:
            self._take(line)

    def _take(self, line: bytes) -> None:
        try:
            self.events.append(decode(line, len(self.events) + 1))
        except CorruptTraceError as error:
            raise CorruptTraceError(f"{self.path}: {error}") from error
        self.size += len(line) + 1

    @property
    def torn(self) -> str | None:
        """What a person should know about an incomplete last line, or None."""
        if not self.tail:
            return None
        number, size = len(self.events) + 1, len(self.tail)
        return f"line {number} of {self.path.name} is incomplete ({size} bytes) and left out"


class EventWriter:
    """Appends lines to the log, each synced before it counts."""

    def __init__(self, path: Path) -> None:
        """Open the log for appending, after moving an incomplete last line aside.

        Raises:
            CorruptTraceError: the log cannot be read.
            StorageError: it cannot be written.
        """
        self.path = path
        reader = EventReader(path)
        reader.refresh()
        self.events = reader.events
        self.torn: str | None = None
        self._size = reader.size
        if reader.tail:
            self.torn = self._set_aside(reader)
        with storage_errors(path):
            self._fd: int | None = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            sync_directory(path.parent)

    def append(self, line: str) -> Event:
        """Write one line and sync it; the event it returns is what a reader would read.

        Raises:
            StorageError: the disk refused the line; none of it stays in the log.
        """
        if self._fd is None:
            raise TraceError(f"{self.path} is closed")
        data = line.encode() + b"\n"
        event = decode(data, len(self.events) + 1)
        with storage_errors(self.path):
            self._take_back(self._fd)
            try:
                write_all(self._fd, data)
                os.fsync(self._fd)
            except OSError:
                self._take_back(self._fd)
                raise
        self._size += len(data)
        self.events.append(event)
        return event

    @property
    def closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._fd is None

    def close(self) -> None:
        """Close the file; further appends raise ``TraceError``."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def _take_back(self, fd: int) -> None:
        # What a failed or interrupted append left behind: the next line must not be glued to it.
        if os.fstat(fd).st_size != self._size:
            os.ftruncate(fd, self._size)

    def _set_aside(self, reader: EventReader) -> str:
        number = 1
        while (aside := self.path.with_name(f"events.torn-{number}.jsonl")).exists():
            number += 1
        write_atomic(aside, reader.tail)
        with storage_errors(self.path), self.path.open("r+b") as file:
            file.truncate(reader.size)
            os.fsync(file.fileno())
        return f"{reader.torn}; it is kept in {aside.name}"


def last_event(path: Path) -> Event | None:
    """The last complete event of a log, read from its end without parsing the rest; None for an empty log.

    Raises:
        CorruptTraceError: the last complete line is not an event.
    """
    try:
        with path.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            start, data = end, b""
            while start > 0 and data.count(b"\n") < 3:
                step = min(start, max(_TAIL, len(data)))
                start -= step
                file.seek(start)
                data = file.read(step) + data
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CorruptTraceError(f"cannot read {path}: {error.strerror}") from error
    lines = [line for line in data.split(b"\n")[:-1] if b"\0" not in line]
    if not lines:
        return None
    try:
        return decode(lines[-1], int(json.loads(lines[-1])["id"][1:]))
    except (CorruptTraceError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise CorruptTraceError(f"{path}: the last line is not an event: {error}") from error
