"""Where rich text goes: a terminal, or a pipe, which has no edge."""

from __future__ import annotations

from rich.console import Console

__all__ = ["open_console"]


def open_console(*, pipe_width: int = 120) -> Console:
    """The console of standard output; ``pipe_width`` columns where that is no terminal."""
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = pipe_width
    return console
