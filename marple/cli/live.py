"""The progress of a run, as it happens, on standard error."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from marple.agent.run import Watcher
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
        self.console.print(f"[bold]{spec['case']}[/] · {spec['investigator']} · seed {spec['seed']}", soft_wrap=True)
        self.console.print(f"recorded in {escape(str(folder.path))}", soft_wrap=True)
        self._calls = self._bars.add_task("experiments", total=spec["budget"]["calls"])

    def progress(self) -> Any:
        """A bar for building an organism."""
        from marple.cli.organisms import RichProgress

        return RichProgress(self._bars)

    def on_event(self, event: Event) -> None:
        """Print the event's line and move the bars."""
        if event.type == "tool_call" and event.payload.get("on_target") and self._calls is not None:
            self._bars.advance(self._calls)
        if event.type == "hypothesis":
            self._belief = f"{event.payload['id']} {event.payload['credence']:.2f}"
        if self._calls is not None:
            self._bars.update(self._calls, description=f"experiments {self._belief}".rstrip())
        line = event_line(event)
        if line:
            self.console.print(escape(f"{event.id:>4}  {line}"), overflow="ellipsis", no_wrap=True)


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
    """One line on an event for a person, or '' for an event that says nothing by itself."""
    payload = event.payload
    lines = {
        "run_start": lambda: "start",
        "run_resume": lambda: f"resumed after {payload['after']}",
        "model_call": lambda: f"think      {_first_line(payload['turn']['text'])}" if payload["turn"]["text"] else "",
        "tool_call": lambda: _call_line(event),
        "plan": lambda: f"plan       {payload['proxy']}",
        "hypothesis": lambda: f"hypothesis {payload['id']} {payload['credence']:.2f}  {payload['statement']}",
        "prediction": lambda: f"predict    {payload['probability']:.2f}  {payload['statement']}",
        "measurement": lambda: f"outcome    {payload['text']}",
        "check_in": lambda: "check-in",
        "limit": lambda: f"limit      {payload['limit']}",
        "error": lambda: f"error      {payload['message']}",
        "answer": lambda: f"answer     {_first_line(payload['answer'].get('summary', ''))}",
        "forecast": lambda: "forecasts" if "probabilities" in payload else "",
        "run_end": lambda: f"end        {payload['status']}",
    }
    return lines[event.type]().split("\n")[0] if event.type in lines else ""


def _call_line(event: Event) -> str:
    payload = event.payload
    if not payload.get("on_target"):
        return "" if payload["status"] == "ok" else f"{payload['tool']:10} refused: {_first_line(payload['text'])}"
    text = payload["text"].removeprefix(f"[{event.id}] ")
    return f"{payload['tool']:10} {event.seconds or 0:.1f} s  {_first_line(text)}"


def _first_line(text: str) -> str:
    return text.strip().split("\n")[0][:_WIDTH]
