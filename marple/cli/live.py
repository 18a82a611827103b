"""The progress of a run, as it happens, on standard error."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from marple.agent.run import Watcher
from marple.agent.session import CallProgress
from marple.tools.visible import visible
from marple.traces import Event, RunFolder

__all__ = ["JsonWatcher", "LiveWatcher", "event_line"]

_WIDTH = 110


class JsonWatcher(Watcher):
    """Prints the launch record and nothing else."""

    def __init__(self) -> None:
        self.record: dict[str, Any] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        return None

    def launched(self, folder: RunFolder) -> None:
        """Print the launch record."""
        self.record = launch_record(folder)
        print(json.dumps(self.record), flush=True)


class LiveWatcher(Watcher):
    """A line for every event, bars for the budget and for what is being built."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        if not self.console.is_terminal:
            self.console.width = _WIDTH + 10  # a log file has no edge to fold at
        self._turn = 0
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=self.console,
            transient=True,
        )
        self._calls: TaskID | None = None
        self._belief = ""
        self._under_way: dict[tuple[int, int], TaskID] = {}

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bars.stop()

    def launched(self, folder: RunFolder) -> None:
        """Say what is being run and where it is recorded."""
        spec = folder.spec
        case, rest = (escape(visible(text)) for text in (spec["case"], f"{spec['investigator']} · seed {spec['seed']}"))
        self.console.print(f"[bold]{case}[/] · {rest}", soft_wrap=True)
        self.console.print(f"recorded in {escape(visible(str(folder.path)))}", soft_wrap=True)
        self._calls = self._bars.add_task("experiments", total=spec["budget"]["calls"])

    def progress(self) -> Any:
        """A bar for building an organism; where no bar can be drawn, a line for each stage."""
        from marple.cli.organisms import RichProgress

        if self.console.is_terminal:
            return RichProgress(self._bars)
        return _StageLines(self.console)

    def on_call(self, call: CallProgress) -> None:
        """Show how far a call is, until it is done."""
        place = (call.turn, call.index)
        if place not in self._under_way:
            self._under_way[place] = self._bars.add_task(call.tool, total=call.total)
        description = escape(visible(f"{call.tool} {call.what}"))
        self._bars.update(self._under_way[place], description=description, completed=call.done, total=call.total)

    def on_event(self, event: Event) -> None:
        """Print the event's line and move the bars."""
        if event.type == "tool_call":
            done = self._under_way.pop((event.payload["turn_number"], event.payload["index"]), None)
            if done is not None:
                self._bars.remove_task(done)
        if event.type == "tool_call" and event.payload.get("on_target") and self._calls is not None:
            self._bars.advance(self._calls)
        if event.type == "model_call":
            self._turn = event.payload["turn_number"]
        if event.type == "hypothesis":
            self._belief = escape(visible(f"{event.payload['id']} {event.payload['credence']:.2f}"))
        if self._calls is not None:
            self._bars.update(self._calls, description=f"turn {self._turn} {self._belief} experiments")
        line = event_line(event)
        if line:
            self.console.print(escape(f"{event.id:>4}  {line}"), overflow="ellipsis", no_wrap=True)


class _StageLines:
    """The stages of a build as lines, where no bar can be drawn."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def stage(self, name: str, total: int) -> None:
        """Print the stage."""
        self._console.print(f"  building   {name}")

    def advance(self, done: int, note: str = "") -> None:
        """Nothing to draw."""


def launch_record(folder: RunFolder) -> dict[str, Any]:
    """What ``--json`` prints when a run begins."""
    spec = folder.spec
    return {
        "run_id": folder.run_id,
        "run_dir": str(Path(folder.path).resolve()),
        "case": spec["case"],
        "investigator": spec["investigator"],
    }


def event_line(event: Event) -> str:
    """One line on an event for a terminal, or '' for an event that says nothing by itself."""
    if event.type in _TEMPLATES:
        line = _TEMPLATES[event.type].format_map(event.payload)
    elif event.type in _DESCRIBED:
        line = _DESCRIBED[event.type](event)
    else:
        line = ""
    return visible(line.split("\n")[0])


def _thought_line(event: Event) -> str:
    text = event.payload["turn"]["text"]
    return f"think      {_first_line(text)}" if text else ""


def _call_line(event: Event) -> str:
    payload = event.payload
    if not payload.get("on_target"):
        return "" if payload["status"] == "ok" else f"{payload['tool']:10} refused: {_first_line(payload['text'])}"
    return f"{payload['tool']:10} {event.seconds or 0:.1f} s  {_first_line(payload['text'])}"


def _answer_line(event: Event) -> str:
    return f"answer     {_first_line(event.payload['answer'].get('summary', ''))}"


def _forecast_line(event: Event) -> str:
    return "forecasts" if "probabilities" in event.payload else ""


def _replication_line(event: Event) -> str:
    effects = event.payload.get("effects", ())
    again = sum(row["target"]["appears"] for row in effects)
    said = f"{again} of {len(effects)} effects came again" if effects else event.payload.get("reason", "")
    return f"replicate  {event.seconds or 0:.1f} s  {event.payload['call']}: {_first_line(said)}"


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0][:_WIDTH]


_TEMPLATES = {
    "run_start": "start",
    "run_resume": "resumed after {after}",
    "plan": "plan       {proxy}",
    "hypothesis": "hypothesis {id} {credence:.2f}  {statement}",
    "prediction": "predict    {probability:.2f}  {statement}",
    "measurement": "outcome    {text}",
    "check_in": "check-in",
    "limit": "limit      {limit}",
    "error": "error      {message}",
    "run_end": "end        {status}",
}

_DESCRIBED: dict[str, Callable[[Event], str]] = {
    "model_call": _thought_line,
    "tool_call": _call_line,
    "answer": _answer_line,
    "forecast": _forecast_line,
    "replication": _replication_line,
}
