"""``marple evaluate``: arms on cases in epochs, and the table of it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marple.cli.run import PLUGIN_OPTION
from marple.errors import StorageError, UsageError

if TYPE_CHECKING:
    from marple.agent.evaluation.arms import Arm
    from marple.agent.evaluation.evaluating import Evaluated, EvaluationOptions, Prepared
    from marple.agent.evaluation.suite import Suite

__all__ = ["evaluate"]

_DEFAULT_ARMS = "prior,scripted-blackbox,scripted-whitebox"


def evaluate(
    suite: Annotated[
        str | None, typer.Argument(help="Name of a suite (nano, nano-quick, open, user), or a YAML file.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the evaluation; the same command again finishes it.")
    ] = None,
    arms: Annotated[
        str | None, typer.Option(help="Who plays: a YAML file, or a list such as prior,scripted-blackbox.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="How often each arm plays each case, each time with another seed.")
    ] = None,
    executor: Annotated[str, typer.Option(help="What plays the runs: local or ray.")] = "local",
    max_parallel: Annotated[int, typer.Option(min=1, help="Runs at once.")] = 16,
    max_targets: Annotated[int, typer.Option(min=1, help="Targets that are loaded at once.")] = 2,
    only: Annotated[str | None, typer.Option(help="Samples to play now: a pattern of ARM/KIND/TARGET/EPOCH.")] = None,
    retry_errors: Annotated[
        bool, typer.Option("--retry-errors", help="Play again what an error of the machine ended.")
    ] = False,
    budget: Annotated[
        str | None, typer.Option(help="Of the whole evaluation: cost=5,seconds=3600,target_tokens=1e8.")
    ] = None,
    run_budget: Annotated[str | None, typer.Option(help="Of each run, for example turns=20,calls=40.")] = None,
    plugin: Annotated[list[Path] | None, PLUGIN_OPTION] = None,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Let control arms play beside language models.")
    ] = True,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would be played and what it may cost.")] = False,
    schema: Annotated[
        str | None, typer.Option(help="Print the JSON schema of a file (suite or arms), and nothing else.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print records: one at the launch, one a sample, one at the end.")
    ] = False,
) -> None:
    """Evaluate arms on a suite of cases: every arm on every case in every epoch."""
    from marple.agent.evaluation.schemas import schema_text

    if schema is not None:
        print(schema_text(schema), end="")
        return
    if suite is None or out is None:
        raise UsageError("say what and where: marple evaluate SUITE --out DIR, for example nano-quick --out evaluation")
    from marple.agent.evaluation.evaluating import EvaluationOptions, prepare
    from marple.agent.evaluation.executor import ExecutorOptions
    from marple.agent.evaluation.plan import Plan
    from marple.agent.evaluation.suite import open_suite
    from marple.agent.evaluation.totals import TotalBudget
    from marple.agent.plugins import named_plugins

    found = open_suite(suite)
    suite_with_budget = _with_run_budget(found, run_budget)
    plugins = named_plugins(plugin or [])
    plan = Plan.of(suite_with_budget, _arms(found, arms, controls=controls), _epochs(found, epochs), plugins=plugins)
    options = EvaluationOptions(
        executor=executor,
        limits=ExecutorOptions(max_parallel=max_parallel, max_targets=max_targets),
        budget=TotalBudget.of_text(budget) if budget is not None else found.budget,
        only=only,
        retry_errors=retry_errors,
    )
    prepared = prepare(plan, out, options)
    if dry_run:
        _show_dry_run(prepared, as_json=as_json)
    else:
        sys.exit(_play(prepared, options, as_json=as_json))


def _arms(suite: Suite, said: str | None, *, controls: bool) -> list[Arm]:
    """The arms that were named, or those of the suite's file, or the control arms; and the controls beside a model."""
    from marple.agent.evaluation.arms import named_arms, read_arms, with_controls

    if said is not None:
        is_file = said.endswith((".yaml", ".yml")) or Path(said).is_file()
        arms = read_arms(Path(said)) if is_file else named_arms(said)
    else:
        arms = list(suite.arms) if suite.arms is not None else named_arms(_DEFAULT_ARMS)
    return with_controls(arms) if controls else arms


def _epochs(suite: Suite, said: int | None) -> int:
    return said if said is not None else suite.epochs or 1


def _with_run_budget(suite: Suite, text: str | None) -> Suite:
    from dataclasses import replace

    from marple.tasks.budget import Budget

    if text is None:
        return suite
    names = [part.partition("=")[0].strip() for part in text.split(",")]
    limits = Budget().with_text(text)
    return replace(suite, run_budget={**suite.run_budget, **{name: getattr(limits, name) for name in names}})


def _play(prepared: Prepared, options: EvaluationOptions, *, as_json: bool) -> int:
    from marple.agent.draining import Drain
    from marple.agent.evaluation.evaluating import evaluate as play
    from marple.agent.evaluation.reporting import make_report
    from marple.cli.evaluation_progress import open_watcher

    with open_watcher(prepared, as_json=as_json) as watcher:
        done = asyncio.run(play(prepared, hear=watcher.hear, drain=Drain(watcher.draining)))
    # A report of what is not finished says so; it can be made again at any time.
    files: list[Path] = []
    failed: StorageError | None = None
    try:
        files = make_report(done.path)
    except StorageError as error:
        failed = error
    if as_json:
        print(json.dumps(_record(done, files)), flush=True)
    else:
        _print_end(done, files)
    if failed is not None:
        raise failed
    if done.interrupted:
        return 130
    return 0 if done.scored == done.samples else 3


def _record(done: Evaluated, files: list[Path]) -> dict[str, Any]:
    return {
        "what": "done",
        "dir": str(done.path.resolve()),
        "samples": done.samples,
        "scored": done.scored,
        "statuses": dict(done.statuses),
        "stopped": done.stopped,
        "stopped_arms": dict(done.stopped_arms),
        "spent": vars(done.spent),
        "interrupted": done.interrupted,
        "report": [str(file) for file in files],
    }


def _print_end(done: Evaluated, files: list[Path]) -> None:
    from rich.table import Table

    from marple.agent.evaluation.plain_table import plain_table
    from marple.cli.evaluation_progress import wide_console
    from marple.tools.visible import visible

    console = wide_console()
    rows = plain_table(done.path)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for name in rows[0]:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(visible(value) for value in row.values()))
    console.print(table)
    for line in (*_ends(done), *(f"report: {file}" for file in files)):
        console.print(visible(line), markup=False, soft_wrap=True)


def _ends(done: Evaluated) -> list[str]:
    """What a reader of the table must know."""
    lines = [f"{done.scored} of {done.samples} samples are scored; everything is in {done.path}"]
    for arm, why in done.stopped_arms.items():
        lines.append(
            f"The arm {arm} was stopped: {why}. Mend that and give the same command with --retry-errors to play its "
            "samples."
        )
    if done.stopped:
        lines.append(f"{len(done.not_run)} samples were not run: {done.stopped}.")
    if done.interrupted:
        lines.append("Interrupted. The same command goes on.")
    elif done.unfinished:
        lines.append(f"{done.unfinished} samples have no result yet; the same command plays them.")
    return lines


def _show_dry_run(prepared: Prepared, *, as_json: bool) -> None:
    from marple.agent.evaluation.estimate import estimate

    arms = estimate(prepared.samples, prepared.left, prepared.log)
    if as_json:
        record = {"what": "dry-run", "dir": str(prepared.folder.path), "arms": [arm.to_dict() for arm in arms]}
        print(json.dumps({**record, "samples": [sample.name for sample in prepared.left]}))
        return
    from marple.cli.evaluation_progress import print_plan

    print_plan(prepared, arms)
