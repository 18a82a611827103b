"""Finding runs in a runs folder."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from marple.errors import TraceError, UnknownNameError, UsageError
from marple.traces.documents import read_json, state_of
from marple.traces.event_log import last_event
from marple.traces.run_folder import RunFolder

__all__ = ["RunSummary", "find_run", "list_runs"]


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
    runs = [_summary(path) for path in folders]
    return sorted(runs, key=lambda run: (-(run.started or 0.0), run.id))


def find_run(root: Path, text: str) -> RunFolder:
    """Open the run that ``text`` names: an id, the only id that starts with it, or a path.

    Raises:
        UnknownNameError: no such run; lists the nearest ids.
        UsageError: several ids start with ``text``.
        CorruptTraceError: the folder cannot be read.
    """
    if os.sep in text and (Path(text) / "run.json").exists():
        return RunFolder.open(Path(text))
    paths = {run.id: run.path for run in list_runs(root)}
    ids = [text] if text in paths else sorted(run_id for run_id in paths if text and run_id.startswith(text))
    if len(ids) > 1:
        raise UsageError(f"{text!r} fits {len(ids)} runs: {', '.join(ids[:5])}; give more of the id")
    if not ids:
        if (Path(text) / "run.json").exists():
            return RunFolder.open(Path(text))
        raise UnknownNameError("run", text, paths, hint=f"in {root}; `marple runs` lists them")
    return RunFolder.open(paths[ids[0]])


def _summary(path: Path) -> RunSummary:
    try:
        spec = read_json(path / "run.json")
        result = read_json(path / "result.json") if (path / "result.json").exists() else {}
        last = last_event(path / "events.jsonl")
    except TraceError as error:
        return RunSummary(id=path.name, path=path, status="broken", problem=str(error))
    started = _number(spec.get("created"))
    usage = result.get("usage")
    seconds = _number(usage.get("seconds")) if isinstance(usage, dict) else None
    if seconds is None and started is not None and last is not None:
        seconds = max(0.0, last.ts - started)
    scores = result.get("scores")
    return RunSummary(
        id=path.name,
        path=path,
        status=state_of(path),
        case=_text(spec.get("case")),
        investigator=_text(spec.get("investigator")),
        model=_text(spec.get("model")),
        outcome=_text(result.get("status")),
        started=started,
        seconds=seconds,
        scores=scores if isinstance(scores, dict) else {},
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
