"""An index of a runs folder: what the list shows, and full-text search over everything the runs say.

It is made from the folders, kept in SQLite (``.index.sqlite`` in the runs folder, in memory where that cannot be
written), and can be deleted at any time: the next reader makes it anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from marple.errors import UsageError
from marple.traces.documents import state_of
from marple.traces.index_entries import Entry, Stamp, entry_of, stamp_of
from marple.traces.index_texts import texts_of

__all__ = ["Entry", "Hit", "RunIndex"]

NAME = ".index.sqlite"
_VERSION = 5
_ROOM = 2**24
"""Row ids kept free for each run's texts."""
_START, _END = "\x02", "\x03"
_TABLES = """
CREATE TABLE runs (no INTEGER PRIMARY KEY, name TEXT UNIQUE, stamp TEXT, entry TEXT, read TEXT DEFAULT '');
CREATE VIRTUAL TABLE texts USING fts5(body, event UNINDEXED, type UNINDEXED, tokenize = "unicode61");
"""


@dataclass(frozen=True)
class Hit:
    """One event that a search found."""

    run: str
    """Name of the run's folder."""
    event: str
    """Its id; '' for what was said of the run as a whole."""
    type: str
    parts: tuple[tuple[str, bool], ...]
    """Text around what was found, in pieces; True for those that match."""


class RunIndex:
    """The index of one runs folder; safe to be used by several threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._turn = threading.Lock()
        self._entries: dict[str, tuple[str, Entry]] = {}
        self._db = _open(root / NAME)
        for name, stamp, entry in self._db.execute("SELECT name, stamp, entry FROM runs"):
            self._entries[name] = (stamp, Entry.from_json(entry))

    def entries(self) -> list[Entry]:
        """The runs as they are now, newest first; only folders that have changed are read.

        Raises:
            UsageError: the runs folder cannot be listed.
        """
        with self._turn:
            found = self._folders()
            for name in self._entries.keys() - found.keys():
                self._forget(name)
            for name, stamp in found.items():
                if self._entries.get(name, ("", None))[0] != stamp.text:
                    self._take(name, stamp)
            self._write("COMMIT")
            entries = [self._as_it_is(entry) for _, entry in self._entries.values()]
        return sorted(entries, key=lambda entry: (-(entry.started or 0.0), entry.name))

    def unread(self) -> int:
        """How many runs have text that the search does not know yet."""
        with self._turn:
            return int(self._db.execute("SELECT count(*) FROM runs WHERE read != stamp").fetchone()[0])

    def read_next(self) -> bool:
        """Take in the text of one run that has changed; False when there is none."""
        with self._turn:
            row = self._db.execute("SELECT no, name, stamp FROM runs WHERE read != stamp ORDER BY no DESC").fetchone()
        if row is None:
            return False
        no, name, stamp = row
        texts = [(no * _ROOM + at, *one) for at, one in enumerate(texts_of(self.root / name))]
        with self._turn:
            self._write("BEGIN IMMEDIATE")
            self._write("DELETE FROM texts WHERE rowid BETWEEN ? AND ?", no * _ROOM, (no + 1) * _ROOM - 1)
            with contextlib.suppress(sqlite3.Error):
                self._db.executemany("INSERT INTO texts (rowid, body, event, type) VALUES (?, ?, ?, ?)", texts)
            self._write("UPDATE runs SET read = ? WHERE no = ?", stamp, no)
            self._write("COMMIT")
        return True

    def search(self, query: str, *, limit: int = 400) -> list[Hit]:
        """The newest events that hold every word of ``query``; ``"..."`` is a phrase, ``word*`` a beginning."""
        wanted = _fts(query)
        if not wanted:
            return []
        sql = (
            f"SELECT rowid / {_ROOM}, event, type, snippet(texts, 0, char(2), char(3), ' … ', 28) FROM texts "
            "WHERE texts MATCH ? ORDER BY rowid DESC LIMIT ?"
        )
        with self._turn:
            try:
                found = self._db.execute(sql, (wanted, limit)).fetchall()
            except sqlite3.OperationalError:
                return []
            names = dict(self._db.execute("SELECT no, name FROM runs"))
        return [Hit(names[no], event, kind, _parts(text)) for no, event, kind, text in found if no in names]

    def close(self) -> None:
        """Close the database."""
        with self._turn:
            self._db.close()

    def _folders(self) -> dict[str, Stamp]:
        try:
            with os.scandir(self.root) as found:
                paths = {one.name: one.path for one in found if not one.name.startswith(".") and one.is_dir()}
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise UsageError(f"cannot list the runs folder {self.root}: {error.strerror}") from error
        return {name: stamp_of(path) for name, path in paths.items()}

    def _take(self, name: str, stamp: Stamp) -> None:
        entry = entry_of(self.root / name)
        self._entries[name] = (stamp.text, entry)
        if not self._db.in_transaction:
            self._write("BEGIN IMMEDIATE")
        said = json.dumps(asdict(entry))
        self._write(
            "INSERT INTO runs (name, stamp, entry) VALUES (?, ?, ?) "
            "ON CONFLICT (name) DO UPDATE SET stamp = excluded.stamp, entry = excluded.entry",
            *(name.encode(errors="replace").decode(), stamp.text, said),
        )

    def _forget(self, name: str) -> None:
        del self._entries[name]
        if not self._db.in_transaction:
            self._write("BEGIN IMMEDIATE")
        row = self._db.execute("SELECT no FROM runs WHERE name = ?", (name,)).fetchone()
        if row is not None:
            self._write("DELETE FROM texts WHERE rowid BETWEEN ? AND ?", row[0] * _ROOM, (row[0] + 1) * _ROOM - 1)
            self._write("DELETE FROM runs WHERE no = ?", row[0])

    def _as_it_is(self, entry: Entry) -> Entry:
        # Whether somebody still writes a folder is told by its lock, not by the files that the stamp looks at.
        if entry.state not in ("running", "interrupted"):
            return entry
        state = state_of(self.root / entry.name)
        return replace(entry, state="paused" if state == "running" and entry.held else state)

    def _write(self, sql: str, *values: object) -> None:
        # Another reader may hold the file: what is not kept now is made again by the next look.
        if sql == "COMMIT" and not self._db.in_transaction:
            return
        with contextlib.suppress(sqlite3.OperationalError):
            self._db.execute(sql, values)


def _open(path: Path) -> sqlite3.Connection:
    """The database in ``path``, made anew where it is of another version or broken; in memory where it must be."""
    with contextlib.suppress(sqlite3.Error, OSError):
        return _prepared(path, fresh=False)
    with contextlib.suppress(sqlite3.Error, OSError):
        for one in (path, path.with_name(f"{path.name}-journal")):
            one.unlink(missing_ok=True)
        return _prepared(path, fresh=True)
    return _prepared(None, fresh=True)


def _prepared(path: Path | None, *, fresh: bool) -> sqlite3.Connection:
    if path is not None and not path.parent.is_dir():
        path = None
    db = sqlite3.connect(path or ":memory:", timeout=2, check_same_thread=False, isolation_level=None)
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version != _VERSION:
            if version and not fresh:
                raise sqlite3.DatabaseError("an index of another version")
            db.executescript(f"PRAGMA synchronous = OFF; BEGIN; {_TABLES} PRAGMA user_version = {_VERSION}; COMMIT;")
        db.execute("PRAGMA synchronous = OFF")
        db.execute("SELECT count(*) FROM runs")
    except sqlite3.Error:
        db.close()
        raise
    return db


def _fts(query: str) -> str:
    """``query`` as FTS5 takes it, whatever characters it holds."""
    words: list[str] = []
    for at, part in enumerate(query.replace("\0", " ").encode(errors="replace").decode().split('"')):
        words += [f'"{part}"'] if at % 2 and part.strip() else []
        words += [f'"{word.rstrip("*")}"' + "*" * word.endswith("*") for word in part.split()] if not at % 2 else []
    return " AND ".join(word for word in words if any(letter.isalnum() for letter in word))


def _parts(text: str) -> tuple[tuple[str, bool], ...]:
    return tuple(_pieces(text))


def _pieces(text: str) -> Iterator[tuple[str, bool]]:
    before, *rest = text.split(_START)
    yield before, False
    for one in rest:
        found, _, after = one.partition(_END)
        yield found, True
        yield after, False
