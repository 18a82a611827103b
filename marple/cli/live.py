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
from marple.agent.session import CallProgress
from marple.cli.event_lines import WIDTH, event_line
from marple.tools.visible import visible
from marple.traces import Event, RunFolder

__all__ = ["JsonWatcher", "LiveWatcher"]


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
            self.console.width = WIDTH + 10  # a log file has no edge to fold at
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
