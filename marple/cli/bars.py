"""Progress bars for whatever reports progress, on standard error."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Report", "bars"]

Report = Callable[[int, int, str], None]
"""Gets how many are done, of how many, of what; what stands before a colon names the bar."""


@contextmanager
def bars() -> Iterator[Report]:
    """A bar for each thing that reports progress, on standard error."""
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    from marple.tools.calls import Call, during
    from marple.tools.visible import visible

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True, highlight=False), transient=True) as drawn:
        tasks: dict[str, Any] = {}

        def report(done: int, total: int, what: str) -> None:
            name = what.partition(":")[0]
            if name not in tasks:
                tasks[name] = drawn.add_task(escape(visible(name)), total=total)
            drawn.update(tasks[name], completed=done, total=total, description=escape(visible(what)))

        with during(Call(on_progress=report)):
            yield report
