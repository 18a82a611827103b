"""Finding runs in a runs folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from marple.errors import TraceError, UnknownNameError, UsageError
from marple.traces import lock
from marple.traces.control import Wanted, wanted
from marple.traces.documents import RunState, holds, read_json, state_of
from marple.traces.event_log import last_event
from marple.traces.run_folder import RunFolder

__all__ = ["SILENT_SECONDS", "PlayState", "RunSummary", "find_run", "list_runs", "summary_of"]

SILENT_SECONDS = 60.0
"""A run that is played and has written nothing for so long counts as silent."""

PlayState = Literal["running", "paused", "interrupted", "done", "broken"]


@dataclass(frozen=True)
class RunSummary:
    """One line of the list of runs; what a folder does not tell is None."""

    id: str
    path: Path
    status: str
    """``running``, ``done``, ``interrupted``, or ``broken`` (see ``problem``)."""
    case: str | None = None
    investigator: str | None = None
    model: str | None = None
    outcome: str | None = None
    """The result's own status, such as ``submitted``; None before the run is done."""
    started: float | None = None
    """Seconds since the epoch."""
    seconds: float | None = None
    """Playing time when done (pauses left out), else from the start to the last event."""
    scores: Mapping[str, Any] = field(default_factory=dict)
    problem: str | None = None
    """Why the folder cannot be read."""
    kind: str | None = None
    seed: int | None = None
    state: PlayState = "broken"
    """``paused``: a live process holds it between two steps; the others are as in ``status``."""
    wanted: Wanted = "go"
    """What was asked of it last (``marple.traces.control``), obeyed or not."""
    pid: int | None = None
    """The process that plays it; None where none does."""
    host: str | None = None
    last_event: str | None = None
    last_ts: float | None = None
    """When it last wrote an event, in seconds since the epoch."""
    cost_usd: float | None = None
    """What the investigator's model cost when done; None before, and where a price is unknown."""

    def silent_since(self, now: float, *, longest: float = SILENT_SECONDS) -> float | None:
        """When a run that is being played last wrote something, if that is ``longest`` seconds ago; else None."""
        last = self.last_ts or self.started
        silent = self.state == "running" and last is not None and now - last > longest
        return last if silent else None

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON values."""
        return {**asdict(self), "path": str(self.path)}


def list_runs(root: Path) -> list[RunSummary]:
    """The runs in ``root``, newest first; a broken folder is listed as ``broken``, a missing root is empty.

    Raises:
        UsageError: ``root`` cannot be listed.
    """
    try:
        folders = [path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UsageError(f"cannot list the runs folder {root}: {error.strerror}") from error
    runs = [summary_of(path) for path in folders]
    return sorted(runs, key=lambda run: (-(run.started or 0.0), run.id))


def find_run(root: Path, text: str) -> RunFolder:
    """Open the run that ``text`` names: an id, the only id that starts with it, or a path.

    Raises:
        UnknownNameError: no such run; lists the nearest ids.
        UsageError: several ids start with ``text``.
        CorruptTraceError: the folder cannot be read, or is no run folder.
    """
    if os.sep in text and Path(text).is_dir():
        return RunFolder.open(Path(text))
    paths = {run.id: run.path for run in list_runs(root)}
    ids = [text] if text in paths else sorted(run_id for run_id in paths if text and run_id.startswith(text))
    if len(ids) > 1:
        raise UsageError(f"{text!r} fits {len(ids)} runs: {', '.join(ids[:5])}; give more of the id")
    if not ids:
        if text and Path(text).is_dir():
            return RunFolder.open(Path(text))
        raise UnknownNameError("run", text, paths, hint=f"in {root}; `marple runs` lists them")
    return RunFolder.open(paths[ids[0]])


def summary_of(path: Path) -> RunSummary:
    """What one run folder tells of its run, from its small files and the end of its log."""
    try:
        spec = read_json(path / "run.json")
        # Before the result: a run that ends in between is done, not interrupted.
        player = lock.holder(path / "lock")
        result = read_json(path / "result.json") if (path / "result.json").exists() else {}
        last = last_event(path / "events.jsonl")
        asked = wanted(path)
    except TraceError as error:
        return RunSummary(id=path.name, path=path, status="broken", problem=str(error))
    started = _number(spec.get("created"))
    usage = result.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    seconds = _number(usage.get("seconds"))
    if seconds is None and started is not None and last is not None:
        seconds = max(0.0, last.ts - started)
    scores, spent, seed = result.get("scores"), usage.get("investigator"), spec.get("seed")
    status: RunState = "done" if result else "running" if player else state_of(path)
    playing = player if status == "running" else None
    return RunSummary(
        id=path.name,
        path=path,
        status=status,
        case=_text(spec.get("case")),
        investigator=_text(spec.get("investigator")),
        model=_text(spec.get("model")),
        outcome=_text(result.get("status")),
        started=started,
        seconds=seconds,
        scores=scores if isinstance(scores, dict) else {},
        kind=_text(spec.get("kind")),
        seed=seed if isinstance(seed, int) else None,
        state="paused" if status == "running" and holds(last) else status,
        wanted=asked,
        pid=playing.pid if playing else None,
        host=playing.host if playing else None,
        last_event=last.id if last else None,
        last_ts=last.ts if last else None,
        cost_usd=_number(spent.get("cost_usd")) if isinstance(spent, dict) else None,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
