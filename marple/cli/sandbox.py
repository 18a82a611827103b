"""``marple sandbox``: what isolation this machine gives, found out by trying."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from marple.sandboxes.probing import Examination

__all__ = ["app"]

app = typer.Typer(help="Isolation of the workers: what this machine gives.", no_args_is_help=True)


@app.callback()
def sandbox() -> None:
    """Isolation of the workers: what this machine gives."""


@app.command()
def probe(
    backend: Annotated[str, typer.Option(help="One backend, or all of them.")] = "all",
    as_json: Annotated[bool, typer.Option("--json", help="Print a list with one object for each backend.")] = False,
) -> None:
    """Start each backend, try from inside what it must prevent, and print what held.

    Exits with 0 when the backend works (with all: when one of those that auto chooses from works), with 1 otherwise.
    """
    from marple.errors import UnknownNameError
    from marple.sandboxes import backends
    from marple.sandboxes.backend import find_backends

    found = find_backends()
    if backend not in (*found, "all"):
        raise UnknownNameError("sandbox backend", backend, [*found, "all"])
    names = list(found) if backend == "all" else [backend]
    statuses = backends(names)
    records = [_record(name, statuses[name].available, statuses[name].reason, _examined(name)) for name in names]
    if as_json:
        print(json.dumps(records))
    else:
        for record in records:
            _print(record)
    works = {record["backend"] for record in records if record["available"]}
    wanted = {name for name in names if backend != "all" or found[name].preference > 0}
    sys.exit(0 if works & wanted else 1)


def _examined(name: str) -> Examination | None:
    from marple.sandboxes.probing import last_examination

    return last_examination(name)


def _record(name: str, available: bool, reason: str, found: Examination | None) -> dict[str, Any]:
    details = found.to_json() if found else {"open": [], "checks": [], "stamp": {}, "seconds": None}
    details.pop("problem", None)
    return {**details, "backend": name, "available": available, "reason": reason}


def _print(record: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120  # a log file has no edge to fold at
    stamp = record["stamp"]
    word = "[green]works[/]" if record["available"] else "[red]cannot be used[/]"
    console.print(f"[bold]{record['backend']}[/]  {word}  {escape(_summary(stamp))}")
    if not record["available"]:
        console.print(f"  {escape(record['reason'])}", soft_wrap=True)
    for warning in stamp.get("warnings", ()):
        console.print(f"  warning: {escape(warning)}", soft_wrap=True)
    table = Table(box=None, padding=(0, 2, 0, 0), show_header=False)
    for check in record["checks"]:
        mark = "[green]held[/]" if check["held"] else "[red]OPEN[/]"
        text = f"{check['what']}: {check['detail']}" if check["detail"] else check["what"]
        table.add_row("  " + mark, check["name"], escape(text))
    console.print(table)


def _summary(stamp: dict[str, Any]) -> str:
    words = {
        "isolation": stamp.get("isolation"),
        "files": stamp.get("filesystem"),
        "network": stamp.get("network"),
        "memory": (stamp.get("memory") or {}).get("by"),
    }
    return ", ".join(f"{name}: {value}" for name, value in words.items() if value)
