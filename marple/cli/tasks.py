"""``marple tasks``."""

from __future__ import annotations

import json
from typing import Annotated

import typer

__all__ = ["app"]

app = typer.Typer(help="List the cases, or show the brief of one.", invoke_without_command=True)


@app.callback()
def tasks(
    context: typer.Context,
    suite: Annotated[str | None, typer.Option(help="Only the cases of this suite.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
) -> None:
    """List the cases."""
    if context.invoked_subcommand is not None:
        return
    from rich.table import Table

    from marple.cli.consoles import open_console
    from marple.tasks.case import list_cases

    cases = list_cases(suite)
    if as_json:
        keys = ("id", "kind", "north_star", "suites", "affordances")
        rows = [(c.id, c.kind.name, c.kind.north_star, list(c.suites), list(c.affordances)) for c in cases]
        print(json.dumps([dict(zip(keys, row, strict=True)) for row in rows]))
        return
    table = Table("case", "north star", "suites", "tools", box=None)
    for case in cases:
        table.add_row(case.id, case.kind.north_star, ", ".join(case.suites), str(len(case.affordances)))
    open_console(pipe_width=200).print(table)


@app.command()
def show(
    case: Annotated[str, typer.Argument(help="Id of a case.")],
    models: Annotated[bool, typer.Option("--models", help="Name the models, whose names may tell the answer.")] = False,
) -> None:
    """Print the brief of a case as the investigator sees it, with its tools, budget and the revisions of its models."""
    from dataclasses import asdict

    from marple.tasks.case import find_case

    found = find_case(case)
    print(found.brief())
    limits = ", ".join(
        f"{name}={value if value is not None else 'none'}" for name, value in asdict(found.budget).items()
    )
    print(f"Tools: {', '.join(found.affordances)}\nBudget: {limits}")
    told = [
        f"{role} {source.name if models else '(not named)'} {source.pinned}" for role, source in found.sources().items()
    ]
    if told:
        print(
            "Models: " + "; ".join(told) + ("" if models else ". Their names may tell the answer: --models shows them.")
        )
