"""How an evaluation goes, on standard error: all runs at once, as they happen."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from marple.tools.visible import visible

if TYPE_CHECKING:
    from marple.agent.evaluation.estimate import ArmEstimate
    from marple.agent.evaluation.evaluating import Prepared
    from marple.agent.evaluation.executor import Update

__all__ = ["Watching", "open_watcher", "print_plan", "wide_console"]

_SHOWN = 16
"""Runs that are shown at once."""

_WIDTH = 160


class Watching:
    """Counts what is done; draws nothing."""

    def __init__(self, prepared: Prepared) -> None:
        self.total = len(prepared.left)
        self.there = len(prepared.samples) - self.total
        self.statuses: Counter[str] = Counter()
        self.playing: dict[str, tuple[float, str, str]] = {}
        """By key of the sample: when it was started, its name, and its last step."""
        self._began = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        return None

    def hear(self, update: Update) -> None:
        """Something happened to a sample."""
        key, name = update.job.sample.key, update.job.sample.name
        if update.end is not None:
            self.playing.pop(key, None)
            self.statuses[update.end.status] += 1
        elif update.what == "start":
            self.playing[key] = (time.monotonic(), name, "starts")
        elif key in self.playing:
            self.playing[key] = (self.playing[key][0], name, update.text)

    def draining(self) -> None:
        """It was asked to stop."""

    @property
    def done(self) -> int:
        """Samples that ended since the command began."""
        return sum(self.statuses.values())

    @property
    def counts(self) -> str:
        """One line on where it stands."""
        statuses = ", ".join(f"{n} {status}" for status, n in self.statuses.most_common())
        waiting = self.total - self.done - len(self.playing)
        said = f"{self.done}/{self.total} played" + (f" ({statuses})" if statuses else "")
        there = f" · {self.there} were there" if self.there else ""
        return f"{said} · {len(self.playing)} playing · {waiting} waiting{there}{self._left()}"

    def _left(self) -> str:
        """How long the rest takes at the pace so far; nothing before the first is done."""
        left = self.total - self.done
        if not self.done or not left:
            return ""
        seconds = (time.monotonic() - self._began) / self.done * left
        return f" · about {duration(seconds)} left"


class LineWatching(Watching):
    """A line for each sample that ends."""

    def __init__(self, prepared: Prepared, console: Console) -> None:
        super().__init__(prepared)
        self._console = console
        self._names = f"{prepared.folder.path}: {len(prepared.samples)} samples, {self.there} are there"

    def __enter__(self) -> Self:
        self._say(self._names)
        return self

    def hear(self, update: Update) -> None:
        """Print the end."""
        super().hear(update)
        if update.end is not None:
            end = update.end
            seconds = end.usage.get("seconds")
            took = "" if seconds is None else f"  {float(seconds):.1f} s"
            error = f"  {end.error}" if end.error else ""
            self._say(f"{self.done:>5}/{self.total}  {update.job.sample.name}  {end.status}{took}{error}")

    def draining(self) -> None:
        """Say so."""
        self._say("stopping: every run ends its step; a second Ctrl-C stops at once")

    def _say(self, text: str) -> None:
        self._console.print(visible(text), markup=False, soft_wrap=True)


class LiveWatching(LineWatching):
    """The counts and the running samples with their last call, drawn again and again; errors as lines above."""

    def __init__(self, prepared: Prepared, console: Console) -> None:
        super().__init__(prepared, console)
        self._live = Live(console=console, get_renderable=self._drawn, refresh_per_second=4, transient=True)

    def __enter__(self) -> Self:
        super().__enter__()
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._live.stop()

    def _drawn(self) -> Group:
        table = Table(box=None, pad_edge=False, show_header=False)
        for began, name, step in list(self.playing.values())[:_SHOWN]:
            table.add_row(escape(visible(name)), escape(visible(step)), duration(time.monotonic() - began))
        more = len(self.playing) - _SHOWN
        return Group(Text(self.counts), table, *([Text(f"and {more} more")] if more > 0 else []))


class JsonWatching(Watching):
    """A record on standard output at the launch and for each sample that ends."""

    def __init__(self, prepared: Prepared) -> None:
        super().__init__(prepared)
        path = str(prepared.folder.path.resolve())
        # An executor's own library may be kept from standard output meanwhile.
        self._out = sys.stdout
        self._launch = {"what": "launch", "dir": path, "samples": len(prepared.samples), "left": self.total}

    def __enter__(self) -> Self:
        self._print(self._launch)
        return self

    def hear(self, update: Update) -> None:
        """Print the end."""
        super().hear(update)
        end, sample = update.end, update.job.sample
        if end is not None:
            named: dict[str, Any] = {"arm": sample.arm.name, "case": sample.case, "epoch": sample.epoch}
            said = {"status": end.status, "scored": end.scored, "finished": end.finished, "error": end.error}
            self._print({"what": "sample", "key": end.key, **named, "run_id": end.run_id, **said})

    def _print(self, record: dict[str, Any]) -> None:
        print(json.dumps(record), file=self._out, flush=True)


def open_watcher(prepared: Prepared, *, as_json: bool) -> Watching:
    """What fits where the output goes."""
    if as_json:
        return JsonWatching(prepared)
    console = Console(stderr=True, highlight=False)
    return LiveWatching(prepared, console) if console.is_terminal else LineWatching(prepared, console)


def wide_console() -> Console:
    """Standard output; a file or a pipe has no edge to fold at."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _WIDTH
    return console


def print_plan(prepared: Prepared, arms: Sequence[ArmEstimate]) -> None:
    """The grid, what of it is there, and what the rest may cost."""
    plan, console = prepared.plan, wide_console()
    seeds = f"seeds {plan.first_seed} to {plan.first_seed + plan.epochs - 1}"
    console.print(
        f"{len(plan.arms)} arms x {len(plan.cases)} cases x {plan.epochs} epochs ({seeds}): "
        f"{len(prepared.samples)} samples chosen, {len(prepared.left)} to be played, in {prepared.folder.path}",
        markup=False,
        soft_wrap=True,
    )
    for name, text in plan.criteria.items():
        console.print(visible(f"{name}: {text}"), markup=False)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in (
        "arm",
        "samples",
        "there",
        "errors",
        "begun",
        "to play",
        "tokens",
        "US$",
        "target tokens",
        "run time",
    ):
        table.add_column(column, justify="left" if column == "arm" else "right")
    for arm in arms:
        counts = (arm.samples, arm.finished, arm.errors, arm.interrupted, arm.left)
        table.add_row(visible(arm.arm), *map(str, counts), *_amounts(arm))
    console.print(table)
    console.print("~ measured on scored samples of the arm; <= from the limits of its runs", markup=False)
    for case in plan.cases:
        console.print(f"  {case.id}", markup=False)


def _amounts(arm: ArmEstimate) -> list[str]:
    sign = {"measured": "~", "at most": "<="}.get(arm.basis, "")

    def said(value: float | None, text: str) -> str:
        return "unknown" if value is None else f"{sign}{text}" if value else "0"

    return [
        said(arm.tokens, f"{arm.tokens or 0:,.0f}"),
        said(arm.cost, f"{arm.cost or 0:.2f}"),
        said(arm.target_tokens, f"{arm.target_tokens or 0:,.0f}"),
        said(arm.seconds, duration(arm.seconds or 0)),
    ]


def duration(seconds: float) -> str:
    """``45 s``, ``12 min``, ``3.5 h``."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
