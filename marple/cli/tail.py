"""``marple tail``: a run of another process, followed as it happens."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marple.cli.run import RUNS_OPTION, exit_code

if TYPE_CHECKING:
    from rich.console import Console

    from marple.traces import RunFolder

__all__ = ["follow", "tail"]

_LOOK_SECONDS = 0.2


def tail(
    run: Annotated[str, typer.Argument(help="Id of the run, the start of one, or its folder.")],
    after: Annotated[str, typer.Option("--from", help="First event to print, such as E12.")] = "E1",
    silent: Annotated[float, typer.Option(min=0, help="Seconds without an event after which to say so.")] = 60,
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
) -> None:
    """Follow a run until it ends, whichever process plays it; exits as marple run would. Ctrl-C leaves it alone."""
    from marple.cli.consoles import open_console
    from marple.cli.verdict import print_verdict
    from marple.errors import UsageError
    from marple.traces import find_run

    folder = find_run(runs, run)
    first = after.strip().lstrip("Ee")
    if not first.isdecimal() or int(first) < 1:
        raise UsageError(f"--from {after!r} is not the id of an event; give one such as E12")
    console = open_console()
    ended = follow(folder, console=console, first=int(first), silent=silent)
    if folder.result is not None:
        print_verdict(folder.result, folder.path, console=console)
    elif not ended:
        console.print(f"interrupted; go on with: marple resume {folder.path}", markup=False, soft_wrap=True)
    result = folder.result
    sys.exit(130 if result is None else exit_code(str(result["status"]), answered=bool(result.get("answer"))))


def follow(folder: RunFolder, *, console: Console, first: int, silent: float) -> bool:
    """Print the events from number ``first`` on as they are written; whether the run has ended with a result."""
    from rich.markup import escape

    from marple.cli.event_lines import event_line

    shown, told = first - 1, ""
    while True:
        # The state before the events: what was written before the end is then printed too.
        state = folder.status
        events = folder.events()
        for event in events[shown:]:
            line = event_line(event)
            if line:
                console.print(f"{escape(event.id):>4}  {escape(line)}", overflow="ellipsis", no_wrap=True)
        shown = max(shown, len(events))
        if state != "running":
            return state == "done"
        said = _standing(folder, silent)
        if said and said != told:
            console.print(f"[yellow]{escape(said)}[/]")
        told = said
        time.sleep(_LOOK_SECONDS)


def _standing(folder: RunFolder, silent: float) -> str:
    from marple.tools.visible import visible
    from marple.traces import summary_of

    now = summary_of(folder.path)
    since = now.silent_since(time.time(), longest=silent)
    if since is not None and now.pid is not None:
        clock = time.strftime("%H:%M:%S", time.localtime(since))
        return visible(f"silent since {clock}; process {now.pid} on {now.host} lives")
    return ""
