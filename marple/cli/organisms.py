"""``marple organisms``: list, build and verify the model organisms."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

__all__ = ["RichProgress", "app"]

app = typer.Typer(help="List, build and verify the model organisms.", no_args_is_help=True)

Names = Annotated[list[str], typer.Argument(help="Ids, or paths of recipe files of your own; `base` is the base.")]
Recipes = Annotated[list[Path] | None, typer.Option("--recipes", help="A recipe file or folder to add; repeatable.")]


class RichProgress:
    """Draws the stages of a build as bars of a rich ``Progress`` that somebody else starts and stops."""

    def __init__(self, bars: Progress) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def stage(self, name: str, total: int) -> None:
        """A new bar; the last one disappears."""
        if self._task is not None:
            self._bars.remove_task(self._task)
        self._name = name
        self._task = self._bars.add_task(name, total=total)

    def advance(self, done: int, note: str = "") -> None:
        """Move the bar; it goes away when full."""
        if self._task is None:
            return
        self._bars.update(self._task, completed=done, description=f"{self._name} {note}".rstrip())
        if done >= (self._bars.tasks[-1].total or 0):
            self._bars.remove_task(self._task)
            self._task = None


@app.command("list")
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects.")] = False,
    reveal: Annotated[bool, typer.Option(help="Also show role and truth. Not for whoever is to find them.")] = False,
    extra: Recipes = None,
) -> None:
    """Show every organism that can be built; its truth only with --reveal."""
    from marple.tasks.organisms import find_organism, list_organisms

    extra = extra or []
    rows: list[dict[str, Any]] = []
    for info in list_organisms(extra):
        row: dict[str, Any] = {
            "id": info.id,
            "kind": info.kind,
            "shipped": info.shipped,
            "cached": info.cached,
            "bytes": info.bytes,
        }
        if reveal:
            truth = find_organism(info.id, extra).truth
            slots = {name: slot.value for name, slot in truth.slots.items()}
            row |= {"role": info.role, "family": info.family, "truth": slots or "nothing hidden"}
        rows.append(row)
    if as_json:
        print(json.dumps(rows))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("organism", "kind", "state", "size", *(("role", "truth") if reveal else ()), box=None)
    for row in rows:
        state = "cached" if row["cached"] else "shipped" if row["shipped"] else "to be trained"
        told = [row["role"], _told(row["truth"])] if reveal else []
        table.add_row(row["id"], row["kind"], state, f"{row['bytes'] / 1e6:.1f} MB", *told)
    Console(highlight=False).print(table)


def _told(truth: dict[str, str] | str) -> str:
    return truth if isinstance(truth, str) else " · ".join(truth.values())


@app.command()
def build(
    names: Names,
    from_scratch: Annotated[bool, typer.Option("--from-scratch", help="Train even what is shipped.")] = False,
    force: Annotated[bool, typer.Option(help="Build again even when the cache is sound.")] = False,
    extra: Recipes = None,
) -> None:
    """Build organisms into the cache and measure them; prints where each lies."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from marple.errors import UsageError
    from marple.tasks.organisms import base_path, build, find_organism

    for name in names:
        if name != "base":
            find_organism(name, extra or [])
    console = Console(stderr=True, highlight=False)
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        progress = RichProgress(bars)
        for name in names:
            if name != "base":
                built = build(name, progress=progress, from_scratch=from_scratch, force=force, extra=extra or [])
                print(f"{built.organism.id} {built.path}", flush=True)
            elif from_scratch:
                from marple.tasks.organisms.building import build_base

                print(f"base {build_base(progress=progress, force=force)[0]}", flush=True)
            elif force:
                raise UsageError("the base is only built again with --from-scratch")
            else:
                print(f"base {base_path()}", flush=True)


@app.command()
def verify(
    names: Names,
    seed: Annotated[int, typer.Option(help="Seed of the prompts and of the sampling.")] = 1,
    extra: Recipes = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print a list of objects with every rate.")] = False,
) -> None:
    """Check files and measure again on fresh prompts; builds nothing. Exits with 1 on the first that fails.

    The rates are part of the truth: whoever is to find it should not look.
    """
    from marple.tasks.organisms import find_organism, verify
    from marple.tasks.organisms.verification import verify_base

    for name in names:
        if name != "base":
            find_organism(name, extra or [])
    results = []
    for name in names:
        if name == "base":
            result: dict[str, Any] = {"id": "base", "where": "shipped", "rates": verify_base(seed=seed)}
        else:
            result = verify(name, seed=seed, extra=extra or [])
        results.append(result)
        if not as_json:
            print(f"{result['id']} ok ({result['where']}) {_line(result['rates'])}", flush=True)
    if as_json:
        print(json.dumps(results))


@app.command()
def rates() -> None:
    """Print what was measured on the shipped organisms, as a Markdown table without ids and subjects."""
    from marple.tasks.organisms.catalogue import shipped_rates

    rows = shipped_rates()
    if not rows:
        return
    lines = [list(rows[0]), ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    print("\n".join(f"| {' | '.join(cells)} |" for cells in lines))


def _line(rates: dict[str, Any]) -> str:
    shown = []
    for key, value in rates.items():
        if isinstance(value, dict):
            shown.append(f"{key}: " + ", ".join(f"{kind} {accuracy:.2f}" for kind, accuracy in value.items()))
        elif isinstance(value, float):
            shown.append(f"{key} {value:.2f}")
    return "; ".join(shown)
