"""``marple runs`` and ``marple show``."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Annotated

import typer

from marple.cli.run import RUNS_OPTION

__all__ = ["runs", "show"]


def runs(
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """List the runs, newest first."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from marple.tools.visible import visible
    from marple.traces import list_runs

    def safe(text: str) -> str:
        return escape(visible(text))

    found = list_runs(runs)
    if as_json:
        print(json.dumps([run.to_dict() for run in found]))
        return
    if not found:
        print(f"No runs in {runs}. Make one with: marple demo")
        return
    table = Table("run", "case", "investigator", "status", "solved or cleared", "Brier", "when", box=None)
    for run in found:
        brier = run.scores.get("brier")
        verdict = run.scores.get("solved") if run.scores.get("solved") is not None else run.scores.get("cleared")
        table.add_row(
            *map(safe, (run.id, run.case or "?", run.investigator or "?")),
            safe(run.outcome or (f"broken: {run.problem}" if run.problem else run.status)),
            "" if verdict is None else ("yes" if verdict else "no"),
            "" if brier is None else f"{brier:.3f}",
            "" if run.started is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(run.started)),
        )
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 200  # a pipe has no edge to cut at
    console.print(table)


def show(
    run: Annotated[str, typer.Argument(help="Id of the run, the start of one, or its folder.")],
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print run.json, the events and result.json.")] = False,
) -> None:
    """Print one run: its verdict and what happened."""
    from rich.console import Console
    from rich.markup import escape

    from marple.cli.live import event_line
    from marple.cli.verdict import print_verdict
    from marple.tools.visible import visible
    from marple.traces import find_run

    folder = find_run(runs, run)
    events = folder.events()
    if as_json:
        record = {"id": folder.run_id, "run": folder.spec, "events": [vars(e) for e in events], "result": folder.result}
        print(json.dumps(record))
        return
    console = Console(highlight=False)
    for event in events:
        line = event_line(event)
        if line:
            console.print(f"{event.id:>4}  {escape(line)}", overflow="ellipsis", no_wrap=True)
    if folder.torn:
        console.print(f"[yellow]{escape(visible(folder.torn))}[/]")
    if folder.result is None:
        console.print(f"{folder.status}; go on with: marple resume {escape(visible(str(folder.path)))}")
    else:
        print_verdict(folder.result, folder.path, console=console)
