"""The rows of the performance table, as JSON and as a table for people."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from benchmarks.rounds import Clock, Estimate, Timings

__all__ = ["Row", "Target", "document", "line", "machine", "markdown", "row", "show"]

_LIBRARIES = (
    "marple",
    "torch",
    "transformers",
    "numpy",
    "nnsight",
    "transformer-lens",
    "sae-lens",
    "steering-vectors",
    "repeng",
    "scikit-learn",
)


@dataclass(frozen=True)
class Target:
    """What is to be reached."""

    value: float
    sense: Literal["at most", "at least"] = "at most"

    def met(self, ours: float) -> bool:
        return ours <= self.value if self.sense == "at most" else ours >= self.value


@dataclass
class Row:
    """One operation: ours, the floor and the peers, all in ``unit``."""

    operation: str
    unit: str
    """``x`` of the floor, ``x faster``, ``ms`` or ``s``."""
    ours: float | None = None
    floor: float | None = None
    """The floor in the row's unit: 1 for ratios, 0 for what is measured beyond it."""
    floor_is: str = ""
    peers: dict[str, float] = field(default_factory=dict)
    target: float | None = None
    sense: Literal["at most", "at least"] = "at most"
    met: bool | None = None
    """None where nothing was measured."""
    spread: tuple[float, float] | None = None
    """The quartiles of ours."""
    wall: float | None = None
    """Ours by the wall clock, where the main figure is of processor time."""
    rounds: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    """Median absolute seconds of every variant, by name."""
    checked: str = ""
    """What was found equal before anything was timed."""
    note: str = ""
    missing: str = ""
    """What is not there, so that nothing could be measured; no failure."""
    error: str = ""

    def set(self, value: Estimate, target: Target, *, scale: float = 1.0) -> Row:
        self.ours = value.median * scale
        self.spread = (value.low * scale, value.high * scale)
        self.target, self.sense = target.value, target.sense
        self.met = target.met(self.ours)
        return self


def row(
    operation: str,
    timings: Timings,
    target: Target,
    *,
    floor: str,
    floor_is: str,
    clock: Clock,
    ours: str = "ours",
    peers: tuple[str, ...] | None = None,
    checked: str = "",
    note: str = "",
) -> Row:
    """A row of times in units of the floor's."""
    names = peers if peers is not None else tuple(name for name in timings.cpu if name not in (floor, ours))
    value = timings.ratio(ours, floor, clock)
    return Row(
        operation,
        "x",
        floor=1.0,
        floor_is=floor_is,
        peers={name: timings.ratio(name, floor, clock).median for name in names},
        wall=timings.ratio(ours, floor, "wall").median,
        rounds=len(timings.cpu[ours]),
        seconds={name: timings.seconds(name, clock).median for name in (floor, ours, *names)},
        checked=checked,
        note=note,
    ).set(value, target)


def machine(*, device: str, dtype: str, shape: str, threads: int) -> dict[str, Any]:
    """What the figures were taken on."""
    versions: dict[str, str | None] = {}
    for name in _LIBRARIES:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            versions[name] = None
    return {
        "python": platform.python_version(),
        "system": platform.system(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": threads,
        "device": device,
        "dtype": dtype,
        "shape": shape,
        "versions": versions,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:  # noqa: PTH123
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def document(rows: list[Row], about: dict[str, Any], figures: dict[str, Any]) -> dict[str, Any]:
    """The table as JSON values."""
    return {"rows": [asdict(one) for one in rows], "machine": about, "device_figures": figures}


def line(one: Row) -> str:
    """A row in few words, for while the others are measured."""
    return f"{one.operation}: {_number(one.ours, one.unit)} ({_verdict(one)[0]})"


def markdown(rows: list[Row]) -> str:
    """The table for a document."""
    lines = ["| operation | floor | peers | ours | target |", "|---|---|---|---|---|"]
    for one in rows:
        spread = "" if one.spread is None else f" ({one.spread[0]:.3g} to {one.spread[1]:.3g})"
        ours = one.error or one.missing or f"**{_number(one.ours, one.unit)}**{spread}"
        peers = ", ".join(f"{name} {value:.2f}" for name, value in one.peers.items()) or "-"
        target = "-" if one.target is None else f"{_bound(one)}, {_verdict(one)[0]}"
        lines.append(f"| {one.operation} | {one.floor_is} | {peers} | {ours} | {target} |")
    return "\n".join(lines) + "\n"


def show(rows: list[Row], *, console: Console | None = None) -> None:
    """Print the table."""
    table = Table(title="Cost beside the floor of the same machine", title_justify="left")
    for name in ("operation", "ours", "quartiles", "floor", "peers", "target", "met"):
        table.add_column(name, justify="right" if name in ("ours", "quartiles") else "left", overflow="fold")
    for one in rows:
        table.add_row(
            one.operation,
            _number(one.ours, one.unit),
            "" if one.spread is None else f"{one.spread[0]:.3g} - {one.spread[1]:.3g}",
            one.floor_is,
            ", ".join(f"{name} {value:.3g}" for name, value in one.peers.items()),
            "" if one.target is None else _bound(one),
            Text(*_verdict(one)),
        )
    (console or Console()).print(table)


def _number(value: float | None, unit: str) -> str:
    return "-" if value is None else f"{value:.2f} {unit}"


def _bound(one: Row) -> str:
    return f"{'<=' if one.sense == 'at most' else '>='} {one.target:g}"


def _verdict(one: Row) -> tuple[str, str]:
    if one.error:
        return one.error, "red"
    if one.met is None:
        return f"not measured{one.missing and ': '}{one.missing}", "dim"
    return ("yes", "green") if one.met else ("no", "bold red")
