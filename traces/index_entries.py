"""One line of the list of runs, read off a run folder's documents without reading its events."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple, Self

from marple.errors import TraceError
from marple.traces.documents import holds, read_json, state_of
from marple.traces.event_log import last_event
from marple.traces.labels import read_labels

__all__ = ["Entry", "Stamp", "entry_of", "stamp_of", "verdict_of"]

_FILES = ("run.json", "result.json", "events.jsonl", "review.jsonl")


class Stamp(NamedTuple):
    """What tells whether a folder has changed."""

    text: str


@dataclass(frozen=True)
class Entry:
    """A run as the list shows it; what its folder does not tell is None."""

    name: str
    """Of its folder."""
    state: str
    """``running``, ``paused``, ``done``, ``interrupted`` or ``broken``."""
    case: str | None = None
    kind: str | None = None
    arm: str | None = None
    """The arm of an evaluation; of any other run the investigator."""
    model: str | None = None
    seed: int | None = None
    outcome: str | None = None
    """How it ended, such as ``submitted``."""
    verdict: str = ""
    """``solved``, ``missed``, ``cleared``, ``false alarm``; '' where it has no score."""
    brier: float | None = None
    skill: float | None = None
    """Of its forecasts."""
    replicated: int | None = None
    claims: int | None = None
    cost: float | None = None
    """US dollars; None where the price is unknown."""
    turns: int | None = None
    calls: int | None = None
    target_tokens: int | None = None
    started: float | None = None
    seconds: float | None = None
    last: str | None = None
    """Id of its last event."""
    heard: float | None = None
    """When that was written."""
    held: bool = False
    """Whether the last thing it did was to pause: it is ``paused`` while a process plays it."""
    labels: tuple[str, ...] = ()
    problem: str | None = None

    @classmethod
    def from_json(cls, said: str) -> Self:
        """Undo ``json.dumps(asdict(entry))``; fields of another version are left out."""
        known = {field.name for field in fields(cls)}
        values = {key: value for key, value in json.loads(said).items() if key in known}
        return cls(**{**values, "labels": tuple(values.get("labels", ()))})


def stamp_of(run: str) -> Stamp:
    """Sizes and times of the files that an entry and the search are made of, in the folder at ``run``."""
    said = []
    for name in _FILES:
        try:
            # A list of a thousand runs asks for four thousand of these: a ``Path`` for each would cost more than they.
            stat = os.stat(f"{run}/{name}")  # noqa: PTH116
        except OSError:
            said.append("-")
        else:
            said.append(f"{stat.st_size}.{stat.st_mtime_ns}")
    return Stamp(" ".join(said))


def entry_of(run: Path) -> Entry:
    """The entry of the run folder ``run``; one that cannot be read is ``broken`` and says why."""
    try:
        spec = read_json(run / "run.json")
        result = read_json(run / "result.json") if (run / "result.json").exists() else {}
        last = last_event(run / "events.jsonl")
    except TraceError as error:
        return Entry(name=run.name, state="broken", problem=str(error))
    scores, usage = _object(result, "scores"), _object(result, "usage")
    started = _number(spec.get("created"))
    seconds = _number(usage.get("seconds"))
    if seconds is None and started is not None and last is not None:
        seconds = max(0.0, last.ts - started)
    return Entry(
        name=run.name,
        state=state_of(run),
        case=_text(spec, "case"),
        kind=_text(spec, "kind"),
        arm=_text(_object(spec, "part_of"), "arm") or _text(spec, "investigator"),
        model=_text(spec, "model"),
        seed=_whole(spec, "seed"),
        outcome=_text(result, "status"),
        verdict=verdict_of(scores),
        brier=_number(scores.get("brier")),
        skill=_skill(scores),
        replicated=_whole(_object(scores, "replication"), "n"),
        claims=_whole(_object(scores, "replication"), "n_total"),
        cost=_number(_object(usage, "investigator").get("cost_usd")),
        turns=_whole(usage, "turns"),
        calls=_whole(usage, "calls"),
        target_tokens=_whole(usage, "target_tokens"),
        started=started,
        seconds=seconds,
        last=last.id if last else None,
        heard=last.ts if last else None,
        held=holds(last),
        labels=tuple(sorted({one.label for one in read_labels(run) if one.label})),
    )


def verdict_of(scores: Mapping[str, Any]) -> str:
    """Whether the answer was right, in a word; '' where that is not known."""
    if scores.get("scored") is not True:
        return ""
    if isinstance(scores.get("cleared"), bool):
        return "cleared" if scores["cleared"] else "false alarm"
    if isinstance(scores.get("solved"), bool):
        return "solved" if scores["solved"] else "missed"
    return ""


def _skill(scores: Mapping[str, Any]) -> float | None:
    own = _number(_object(scores, "forecast").get("skill"))
    return own if own is not None else _number(_object(scores, "fires").get("skill"))


def _object(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def _text(value: Mapping[str, Any], key: str) -> str | None:
    found = value.get(key)
    return found if isinstance(found, str) else None


def _whole(value: Mapping[str, Any], key: str) -> int | None:
    found = value.get(key)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e300:
        return None
    return float(value)
