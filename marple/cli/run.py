"""``marple run`` and ``marple resume``."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from marple.cli.human import HUMAN, play_at_terminal, resume_outside
from marple.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from marple.agent.run import RunOutcome, Watcher

__all__ = [
    "CORPUS_OPTION",
    "ONLY_OPTION",
    "PLUGIN_OPTION",
    "RUNS_OPTION",
    "SAE_OPTION",
    "WITHOUT_OPTION",
    "exit_code",
    "play",
    "resume",
    "run",
]

RUNS_OPTION = typer.Option("--runs", envvar="MARPLE_RUNS", help="Folder that holds the run folders.")
SAE_OPTION = typer.Option("--sae", help="Directory with a sparse autoencoder of the target; repeatable.")
CORPUS_OPTION = typer.Option("--corpus", help="JSONL file of transcripts, one conversation a line, to be searched.")
PLUGIN_OPTION = typer.Option(
    "--plugin", help="Python file with tools of your own, run only in the worker; repeatable (or MARPLE_PLUGINS)."
)
EFFORT_OPTION = typer.Option(help="How hard a model is to think: high, or investigator=high,auxiliary=low.")
AUXILIARY_OPTION = typer.Option(help="Model that writes prompts for battery from a hint, as provider/name.")
WINDOW_OPTION = typer.Option(help="Tokens that the model's window holds; known of most families.")
WITHOUT_OPTION = typer.Option(
    "--without", help="A tool, or a family of tools such as sae, that is not offered; repeatable."
)
ONLY_OPTION = typer.Option("--only", help="Highest rung of tools offered (1 to 4), or a family such as prompting.")
JSON_OPTION = typer.Option("--json", help="Print one launch record and one done record, and nothing else.")


def run(
    case: Annotated[str | None, typer.Argument(help="Id of a case (see marple tasks), or a case file.")] = None,
    target: Annotated[
        str | None,
        typer.Option(help="Your own model instead of a case: a directory, a hub id or an endpoint (openai-chat/NAME)."),
    ] = None,
    reference: Annotated[str | None, typer.Option(help="With --target: the model it was fine-tuned from.")] = None,
    target_base_url: Annotated[str | None, typer.Option(help="Address of a target that is an endpoint.")] = None,
    reference_base_url: Annotated[str | None, typer.Option(help="Address of its reference, if another.")] = None,
    question: Annotated[str | None, typer.Option(help="With --target: what you want to know of it.")] = None,
    investigator: Annotated[
        str, typer.Option(help="Who plays: scripted-blackbox, llm, ensemble, human.")
    ] = "scripted-blackbox",
    model: Annotated[str | None, typer.Option(help="Model of the llm investigator, as provider/name.")] = None,
    base_url: Annotated[str | None, typer.Option(help="Address of the model's API.")] = None,
    effort: Annotated[str | None, EFFORT_OPTION] = None,
    auxiliary: Annotated[str | None, AUXILIARY_OPTION] = None,
    auxiliary_base_url: Annotated[str | None, typer.Option(help="Address of the auxiliary model's API.")] = None,
    context_tokens: Annotated[int | None, WINDOW_OPTION] = None,
    members: Annotated[int | None, typer.Option(help="With ensemble: how many members; 5 by default.")] = None,
    member_investigator: Annotated[str | None, typer.Option(help="With ensemble: who plays the members.")] = None,
    member_budget: Annotated[str | None, typer.Option(help="With ensemble: limits of each member.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of every sample and draw.")] = 0,
    budget: Annotated[str | None, typer.Option(help="Limits, for example turns=40,calls=80,seconds=none.")] = None,
    approval: Annotated[str, typer.Option(help="Who approves calls: auto, ask, or a policy file.")] = "auto",
    sandbox: Annotated[str, typer.Option(help="Isolation backend, or auto.")] = "auto",
    sae: Annotated[list[Path] | None, SAE_OPTION] = None,
    corpus: Annotated[Path | None, CORPUS_OPTION] = None,
    plugin: Annotated[list[Path] | None, PLUGIN_OPTION] = None,
    without: Annotated[list[str] | None, WITHOUT_OPTION] = None,
    only: Annotated[str | None, ONLY_OPTION] = None,
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Investigate a model: a case with a known answer, or your own with --target."""
    from marple.agent.configuration import RunConfig
    from marple.agent.run import launch

    config = RunConfig.of(
        case=case,
        target=target,
        reference=reference,
        target_base_url=target_base_url,
        reference_base_url=reference_base_url,
        question=question,
        investigator=investigator,
        budget=budget,
        model=model,
        base_url=base_url,
        effort=effort,
        seed=seed,
        runs=runs,
        approval=approval,
        sandbox=sandbox,
        saes=sae or [],
        corpus=corpus,
        plugins=plugin or [],
        members=members,
        member_investigator=member_investigator,
        member_budget=member_budget,
        auxiliary=auxiliary,
        auxiliary_base_url=auxiliary_base_url,
        context_tokens=context_tokens,
        without=without or [],
        only=only,
    )
    if investigator == HUMAN:
        sys.exit(play_at_terminal(config, budget, as_json=as_json))
    sys.exit(play(lambda watcher: launch(config, watcher=watcher), as_json=as_json))


def resume(
    run: Annotated[str, typer.Argument(help="Id of the run, the start of one, or its folder.")],
    runs: Annotated[Path, RUNS_OPTION] = Path("runs"),
    as_json: Annotated[bool, JSON_OPTION] = False,
) -> None:
    """Go on with a run that was interrupted, or paused."""
    from marple.agent.run import resume as resume_run
    from marple.cli.control import let_go_by_resume
    from marple.traces import find_run

    folder = find_run(runs, run)
    path = folder.path
    if let_go_by_resume(path):
        return
    if (code := resume_outside(folder)) is not None:
        sys.exit(code)
    sys.exit(play(lambda watcher: resume_run(path, watcher=watcher), as_json=as_json))


def play(start: Callable[[Watcher], Coroutine[Any, Any, RunOutcome]], *, as_json: bool) -> int:
    """Play a run to its end with its progress on standard error; returns the exit code."""
    return _play_json(start) if as_json else _play_live(start)


def _play_live(start: Callable[[Watcher], Coroutine[Any, Any, RunOutcome]]) -> int:
    from marple.cli.live import LiveWatcher
    from marple.cli.verdict import print_verdict

    with LiveWatcher() as watcher:
        outcome = asyncio.run(start(watcher))
    if outcome.result is None:
        print(f"Interrupted. Go on with: marple resume {outcome.path}")
    else:
        print_verdict(outcome.result, outcome.path)
    return _exit_code(outcome)


def _play_json(start: Callable[[Watcher], Coroutine[Any, Any, RunOutcome]]) -> int:
    from marple.cli.live import JsonWatcher, launch_record
    from marple.traces import RunFolder

    watcher = JsonWatcher()
    try:
        outcome = asyncio.run(start(watcher))
    except StorageError as error:
        if watcher.record:
            _print_record({**watcher.record, "status": "error", "error": str(error), "scores": {}, "usage": {}})
        raise
    if not watcher.record:
        watcher.record = launch_record(RunFolder.open(outcome.path))
        _print_record(watcher.record)
    result = outcome.result or {}
    done = {"status": outcome.status, "scores": result.get("scores", {}), "usage": result.get("usage", {})}
    _print_record({**watcher.record, **done})
    return _exit_code(outcome)


def _exit_code(outcome: RunOutcome) -> int:
    return exit_code(outcome.status, answered=bool(outcome.result and outcome.result["answer"]))


def exit_code(status: str, *, answered: bool) -> int:
    """The exit code of a run that stands like this."""
    from marple.tasks.outcome import is_scored

    if status == "interrupted":
        return 130
    return 0 if is_scored(status, answered=answered) else 3


def _print_record(record: dict[str, Any]) -> None:
    print(json.dumps(record), flush=True)
