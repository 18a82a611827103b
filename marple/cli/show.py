"""``marple show``: a run, or one event of it in full."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marple.cli.run import RUNS_OPTION

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import Console

    from marple.traces import Event, RunFolder

__all__ = ["show"]


def show(
    run: Annotated[str, typer.Argument(help="Id of the run, the start of one, or its folder.")],
    event: Annotated[str | None, typer.Argument(help="Id of an event, such as E12: that one in full.")] = None,
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, typer.Option("--json", help="Print run.json, the events and result.json.")] = False,
) -> None:
    """Print one run: what happened and its verdict; or one event of it in full."""
    from marple.cli.consoles import open_console
    from marple.cli.one_event import event_record, find_event, print_event
    from marple.traces import find_run

    folder = find_run(runs, run)
    events = folder.events()
    if event is not None:
        found = find_event(folder, events, event)
        if as_json:
            print(json.dumps(event_record(folder, events, found)))
        else:
            print_event(folder, events, found, console=open_console())
        return
    if as_json:
        record = {"id": folder.run_id, "run": folder.spec, "events": [vars(e) for e in events], "result": folder.result}
        print(json.dumps(record))
        return
    _print_run(folder, events, console=open_console())


def _print_run(folder: RunFolder, events: Sequence[Event], *, console: Console) -> None:
    from rich.markup import escape

    from marple.cli.event_lines import event_line
    from marple.cli.verdict import print_verdict
    from marple.tools.visible import visible

    for event in events:
        line = event_line(event)
        if line:
            console.print(f"{event.id:>4}  {escape(line)}", overflow="ellipsis", no_wrap=True)
    # What a live process is writing at this moment is not torn.
    if folder.torn and folder.status != "running":
        console.print(f"[yellow]{escape(visible(folder.torn))}[/]")
    if folder.result is None:
        console.print(escape(visible(_standing(folder))), soft_wrap=True)
    else:
        print_verdict(folder.result, folder.path, console=console)


def _standing(folder: RunFolder) -> str:
    """How a run that is not done stands, and what can be done."""
    from marple.cli.runs import state_text
    from marple.traces import summary_of

    now = summary_of(folder.path)
    words = state_text(now, now=time.time())
    if now.state == "interrupted" and now.wanted == "cancel":
        return f"{words}; finish it with: marple cancel {folder.path}"
    if now.pid is None:
        return f"{words}; go on with: marple resume {folder.path}"
    step = f"marple go {folder.path}" if now.state == "paused" else f"follow it with: marple tail {folder.path}"
    return f"{words} in process {now.pid} on {now.host}; {step}"
