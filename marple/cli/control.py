"""``marple cancel``, ``marple pause`` and ``marple go``: what a run that another process plays, or none, is to do."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marple.cli.run import RUNS_OPTION
from marple.errors import UsageError

if TYPE_CHECKING:
    from marple.traces import RunSummary

__all__ = ["cancel", "go", "let_go_by_resume", "pause"]

_LOOK_SECONDS = 0.1

RUN_ARGUMENT = typer.Argument(help="Id of the run, the start of one, or its folder.")
JSON_OPTION = typer.Option("--json", help="Print what marple runs --json prints of the run.")


def cancel(
    run: Annotated[list[str] | None, typer.Argument(help="Ids of runs, the starts of some, or their folders.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All runs that are not done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --all: do not ask.")] = False,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait until a process has ended its run.")] = 30,
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """End runs for good, in the middle of a call too: they are not scored and cannot be resumed."""
    from marple.traces import summary_of

    if every and run:
        raise UsageError("name the runs, or say --all, not both")
    paths = _all_not_done(runs, yes=yes) if every else _paths(runs, run or [])
    before = {path: summary_of(path) for path in paths}
    for path in paths:
        _cancel(path)
    deadline = time.monotonic() + wait
    ended = [_wait_until_done(path, deadline) for path in paths]
    for path, now in zip(paths, ended, strict=True):
        _report(now, _cancelled_text(before[path], now), as_json=as_json)
    sys.exit(0 if all(now.state == "done" for now in ended) else 1)


def pause(
    run: Annotated[str, RUN_ARGUMENT],
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Let a run wait before its next step, with its worker; its clock stands still until marple go."""
    from marple.traces import find_run, summary_of
    from marple.traces.control import request

    path = find_run(runs, run).path
    request(path, "pause", by="marple pause")
    now = summary_of(path)
    player = f"process {now.pid} on {now.host}"
    texts = {
        "paused": f"paused; {player} keeps its worker",
        "running": f"to pause; {player} lets it wait before the next step",
    }
    nobody = "to pause; no process plays it: it waits when another program resumes it, until marple go"
    _report(now, texts.get(now.state, nobody), as_json=as_json)


def go(
    run: Annotated[str, RUN_ARGUMENT],
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Let a run that was paused go on in the process that holds it."""
    from marple.traces import find_run, summary_of

    path = find_run(runs, run).path
    played = _let_go(path, by="marple go")
    rest = "goes on" if played else f"no process plays it; go on with: marple resume {path}"
    _report(summary_of(path), rest, as_json=as_json)


def let_go_by_resume(path: Path) -> bool:
    """Take a pause back before a run is resumed; whether a live process holds the run, and so goes on with it."""
    from marple.traces import summary_of

    before = summary_of(path)
    if before.wanted != "pause" or before.state == "done":
        return False
    played = _let_go(path, by="marple resume")
    if played:
        print(f"Process {before.pid} on {before.host} goes on with it. Follow it with: marple tail {path}")
    return played


def _let_go(path: Path, *, by: str) -> bool:
    """Take a pause back, asked for or obeyed; whether a process plays the run."""
    from marple.traces import summary_of
    from marple.traces.control import request

    now = summary_of(path)
    if now.state == "done":
        raise UsageError(f"the run {now.id} is done ({now.outcome}); there is nothing to go on with")
    if now.wanted != "go":
        request(path, "go", by=by)
    return now.pid is not None


def _cancel(path: Path) -> None:
    from marple.agent.supervising import cancel_interrupted
    from marple.traces import summary_of
    from marple.traces.control import request

    if summary_of(path).state == "done":
        return
    try:
        request(path, "cancel", by="marple cancel")
    except UsageError:
        return  # it ended meanwhile
    if summary_of(path).state == "interrupted":
        try:
            cancel_interrupted(path)
        except UsageError:
            return  # a process has taken it up meanwhile, and obeys


def _wait_until_done(path: Path, deadline: float) -> RunSummary:
    from marple.traces import summary_of

    while (now := summary_of(path)).state != "done" and time.monotonic() < deadline:
        if now.state == "interrupted":  # its process has died over it
            _cancel(path)
        time.sleep(_LOOK_SECONDS)
    return now


def _cancelled_text(before: RunSummary, now: RunSummary) -> str:
    if before.state == "done":
        return f"had ended before: {before.outcome}"
    if now.state != "done":
        return f"to be cancelled; process {now.pid} on {now.host} has not ended it yet"
    if now.outcome != "cancelled":
        return f"ended before it could be cancelled: {now.outcome}"
    return "cancelled" + ("; no process played it any more" if before.state == "interrupted" else "")


def _paths(runs: Path, names: list[str]) -> list[Path]:
    from marple.traces import find_run

    if not names:
        raise UsageError("say which runs: ids, the starts of some, folders, or --all")
    return list(dict.fromkeys(find_run(runs, name).path for name in names))


def _all_not_done(runs: Path, *, yes: bool) -> list[Path]:
    from marple.tools.visible import visible
    from marple.traces import list_runs

    found = [run for run in list_runs(runs) if run.state in ("running", "paused", "interrupted")]
    if not found:
        print(f"No run in {runs} is to be cancelled: all are done.", file=sys.stderr)
    elif not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"--all would cancel {len(found)} runs for good; say --yes too where nobody can be asked")
        for run in found:
            print(f"  {visible(run.id)}  {run.state}", file=sys.stderr)
        typer.confirm(f"Cancel these {len(found)} runs for good?", abort=True, err=True)
    return [run.path for run in found]


def _report(run: RunSummary, text: str, *, as_json: bool) -> None:
    from marple.cli.runs import record_of
    from marple.tools.visible import visible

    if as_json:
        print(json.dumps(record_of(run, now=time.time())))
    else:
        print(visible(f"{run.id}  {text}"))
