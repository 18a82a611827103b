"""The matrix of an evaluation: a row for every case, a column for every arm, a tile for every run."""

from __future__ import annotations

import fnmatch
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from marple.traces.index import Entry
from marple.traces.review.fields import flag, mapping, number, rows, text, whole
from marple.traces.review.pages import failure, page

__all__ = ["DOCUMENT", "matrix_page"]

DOCUMENT = "evaluation.json"
_SAMPLES = "samples.jsonl"
_TONES = {"solved": "good", "cleared": "good", "missed": "bad", "false alarm": "bad"}
_SIGNS = {"solved": "✓", "cleared": "✓", "missed": "✗", "false alarm": "!"}


@dataclass(frozen=True)
class Tile:
    """One sample of a cell."""

    epoch: int
    run: str
    """Name of the run's folder; '' where it was not played yet."""
    tone: str
    sign: str
    title: str
    score: float | None


@dataclass
class Column:
    """What became of an arm over all cases."""

    arm: str
    about: str
    cases: Sequence[str] = ()
    """Patterns of the cases that it plays by choice; none for all."""
    solved: int = 0
    hiding: int = 0
    cleared: int = 0
    clean: int = 0
    scored: int = 0
    total: int = 0


@dataclass(frozen=True)
class Line:
    """One case."""

    case: str
    kind: str
    cells: Sequence[Sequence[Tile]]
    pair: tuple[str, str] | None = field(default=None)
    """Two runs of the arms that are compared."""


def matrix_page(request: Request) -> Response:
    """The matrix, as far as the evaluation has come."""
    folder: Path | None = request.app.state.evaluation
    if folder is None:
        message = "Open an evaluation's output: marple view DIR, where DIR holds evaluation.json."
        return failure(request, 404, "No evaluation here", message)
    try:
        plan = mapping(json.loads((folder / DOCUMENT).read_bytes()))
    except (OSError, ValueError, RecursionError) as error:
        return failure(request, 422, "This evaluation cannot be read", f"{folder / DOCUMENT}: {error}")
    entries = {entry.name: entry for entry in request.app.state.index.entries()}
    columns = [Column(text(arm.get("name")), _about(arm), _texts(arm.get("cases"))) for arm in rows(plan.get("arms"))]
    played = _played(folder)
    chosen = [request.query_params.get(name, "") for name in ("a", "b")]
    lines = [_line(case, columns, plan, played, entries, chosen) for case in rows(plan.get("cases"))]
    return page(
        request,
        "matrix.html",
        plan=plan,
        columns=columns,
        lines=lines,
        chosen=chosen,
        criteria=[(str(key), str(value)) for key, value in mapping(plan.get("criteria")).items()],
        folder=str(folder),
    )


def _about(arm: Mapping[str, Any]) -> str:
    parts = [text(arm.get("investigator")), text(arm.get("model")), text(arm.get("effort"))]
    parts += [f"only {arm['only']}"] if arm.get("only") else []
    parts += [f"without {', '.join(left_out)}"] if (left_out := _texts(arm.get("without"))) else []
    return " ".join(part for part in parts if part)


def _texts(value: object) -> list[str]:
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _plays(column: Column, case: str) -> bool:
    return not column.cases or any(fnmatch.fnmatchcase(case, pattern) for pattern in column.cases)


def _played(folder: Path) -> dict[str, dict[str, Any]]:
    """For each sample, by its name ``ARM/CASE/EPOCH``, its run and how that ended."""
    found: dict[str, dict[str, Any]] = {}
    names: dict[str, str] = {}
    for line in _log(folder / _SAMPLES):
        key = text(line.get("key"))
        if line.get("what") == "start":
            names[key] = text(line.get("sample"))
            found[names[key]] = {"run": text(line.get("run")), "status": ""}
        elif line.get("what") == "end" and key in names:
            end = mapping(line.get("end"))
            said = {"run": text(line.get("run")), "status": text(end.get("status")), "error": text(end.get("error"))}
            found[names[key]] = said
    return found


def _log(path: Path) -> Iterator[Mapping[str, Any]]:
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except OSError:
        return
    for line in lines:
        try:
            yield mapping(json.loads(line))
        except (ValueError, RecursionError):
            continue


def _line(
    case: Mapping[str, Any],
    columns: Sequence[Column],
    plan: Mapping[str, Any],
    played: Mapping[str, Mapping[str, Any]],
    entries: Mapping[str, Entry],
    chosen: Sequence[str],
) -> Line:
    name, cells = text(case.get("id")), []
    for column in columns:
        tiles: list[Tile] = []
        epochs = min(whole(plan.get("epochs"), 1), 200) if _plays(column, name) else 0
        for epoch in range(1, epochs + 1):
            said = mapping(played.get(f"{column.arm}/{name}/{epoch}"))
            entry = entries.get(text(said.get("run")))
            tiles.append(_tile(epoch, said, entry))
            _count(column, entry)
        cells.append(tiles)
    first = {
        column.arm: next((tile.run for tile in tiles if tile.run), "")
        for column, tiles in zip(columns, cells, strict=True)
    }
    pair = (first.get(chosen[0], ""), first.get(chosen[1], ""))
    return Line(name, text(case.get("kind")), cells, pair if all(pair) and pair[0] != pair[1] else None)


def _tile(epoch: int, said: Mapping[str, Any], entry: Entry | None) -> Tile:
    if entry is None:
        status = text(said.get("status"))
        return Tile(epoch, "", "none", "·", status or "not played yet", None)
    title = f"epoch {epoch}: {entry.verdict or entry.outcome or entry.state}"
    if entry.brier is not None:
        title += f", Brier {entry.brier:.3f}"
    if not entry.verdict:
        running = entry.state in ("running", "paused")
        return Tile(epoch, entry.name, "live" if running else "unsure", "…" if running else "–", title, None)
    return Tile(epoch, entry.name, _TONES[entry.verdict], _SIGNS[entry.verdict], title, number(entry.brier))


def _count(column: Column, entry: Entry | None) -> None:
    column.total += 1
    if entry is None or not entry.verdict:
        return
    column.scored += 1
    if entry.verdict in ("cleared", "false alarm"):
        column.clean += 1
        column.cleared += flag(entry.verdict == "cleared") or 0
    else:
        column.hiding += 1
        column.solved += entry.verdict == "solved"
