"""``marple runs``: how every run stands, for a person and for a program."""

from __future__ import annotations

import json
import time
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marple.cli.run import RUNS_OPTION

if TYPE_CHECKING:
    from marple.traces import RunSummary

__all__ = ["record_of", "runs", "state_text"]

_STATES = ("running", "silent", "paused", "interrupted", "done", "broken")


def runs(
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    status: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Only runs in this state ({', '.join(_STATES)}) or with this end, such as limit; repeatable."
        ),
    ] = None,
    kind: Annotated[str | None, typer.Option(help="Only runs of this kind of task.")] = None,
    case: Annotated[str | None, typer.Option(help="Only runs of this case; * stands for anything.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one object a line for each run.")] = False,
) -> None:
    """List the runs, newest first."""
    from marple.traces import list_runs

    now = time.time()
    _check_status(status or [])
    every = list_runs(runs)
    found = [run for run in every if _is_wanted(run, now, status or [], kind, case)]
    if as_json:
        for run in found:
            print(json.dumps(record_of(run, now=now)))
    elif not every:
        print(f"No runs in {runs}. Make one with: marple demo")
    elif not found:
        print(f"None of the {len(every)} runs in {runs} is like that.")
    else:
        _print_table(found, now)


def record_of(run: RunSummary, *, now: float) -> dict[str, Any]:
    """What ``--json`` prints of a run; the keys are always all there."""
    return {
        "run_id": run.id,
        "run_dir": str(run.path.resolve()),
        "case": run.case,
        "kind": run.kind,
        "investigator": run.investigator,
        "model": run.model,
        "seed": run.seed,
        "state": run.state,
        "silent_since": run.silent_since(now),
        "wanted": run.wanted,
        "pid": run.pid,
        "host": run.host,
        "started": run.started,
        "seconds": run.seconds,
        "last_event": run.last_event,
        "last_ts": run.last_ts,
        "status": run.outcome,
        "scores": dict(run.scores),
        "cost_usd": run.cost_usd if run.state in ("done", "broken") else _cost_so_far(run),
        "problem": run.problem,
    }


def state_text(run: RunSummary, *, now: float) -> str:
    """How a run stands, in a few words."""
    if run.problem:
        return f"broken: {run.problem}"
    if run.outcome:
        return run.outcome
    silent = run.silent_since(now)
    words = run.state if silent is None else f"silent since {_clock(silent, '%H:%M:%S')}"
    asked = {"running": ("pause", "cancel"), "paused": ("cancel", "go"), "interrupted": ("pause", "cancel")}
    return f"{words}, to {run.wanted}" if run.wanted in asked.get(run.state, ()) else words


def _cost_so_far(run: RunSummary) -> float | None:
    from marple.agent.ledger import used_by
    from marple.errors import TraceError
    from marple.traces import RunFolder

    try:
        return used_by(RunFolder.open(run.path).events()).cost
    except (TraceError, KeyError, TypeError, ValueError):
        return None  # a log that cannot be read says nothing of money


def _check_status(asked: list[str]) -> None:
    from typing import get_args

    from marple.errors import UnknownNameError
    from marple.tasks.outcome import Ending

    for one in asked:
        if one not in _STATES and one.partition(":")[0] not in get_args(Ending):
            raise UnknownNameError("status", one, {*_STATES, *get_args(Ending)})


def _is_wanted(run: RunSummary, now: float, status: list[str], kind: str | None, case: str | None) -> bool:
    outcome = run.outcome or ""
    names = {run.state, outcome, outcome.partition(":")[0]}
    if run.silent_since(now) is not None:
        names.add("silent")
    of_kind = kind is None or run.kind == kind
    of_case = case is None or (run.case is not None and fnmatchcase(run.case, case))
    return of_kind and of_case and (not status or bool(names & set(status)))


def _print_table(found: list[RunSummary], now: float) -> None:
    from rich.markup import escape
    from rich.table import Table

    from marple.cli.consoles import open_console
    from marple.tools.visible import visible

    def safe(text: str) -> str:
        return escape(visible(text))

    table = Table("run", "case", "investigator", "status", "solved or cleared", "Brier", "cost", "when", box=None)
    for run in found:
        brier = run.scores.get("brier")
        verdict = run.scores.get("solved") if run.scores.get("solved") is not None else run.scores.get("cleared")
        table.add_row(
            *map(safe, (run.id, run.case or "?", run.investigator or "?")),
            safe(state_text(run, now=now)),
            "" if verdict is None else ("yes" if verdict else "no"),
            "" if brier is None else f"{brier:.3f}",
            "" if run.cost_usd is None else f"${run.cost_usd:.2f}",
            "" if run.started is None else _clock(run.started, "%Y-%m-%d %H:%M"),
        )
    open_console(pipe_width=200).print(table)


def _clock(ts: float, form: str) -> str:
    return time.strftime(form, time.localtime(ts))
