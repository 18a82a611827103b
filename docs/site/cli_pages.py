"""The reference of the command line: what ``marple --help`` and every command's ``--help`` print."""

from __future__ import annotations

from collections.abc import Iterator

import typer
from typer.testing import CliRunner

INTRODUCTION = """# Command line

What `marple --help` and the `--help` of every command print. The exit codes are told in
[running](../running.md#how-a-run-ends).
"""


def cli_page() -> str:
    """The page, in Markdown."""
    parts = [INTRODUCTION]
    for words in commands():
        heading = "##" if len(words) < 2 else "###"
        parts.append(f"{heading} {' '.join(('marple', *words))}\n\n```text\n{help_of(words)}\n```\n")
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, ...]]:
    """The words after ``marple`` of everything that has a help, in the order in which it is listed."""
    from marple.cli import app

    waiting: list[tuple[tuple[str, ...], object]] = [((), typer.main.get_command(app))]
    while waiting:
        words, command = waiting.pop(0)
        yield words
        below = getattr(command, "commands", {})
        waiting[:0] = [((*words, name), one) for name, one in below.items() if not one.hidden]


def help_of(words: tuple[str, ...]) -> str:
    """What ``marple ... --help`` prints.

    Raises:
        RuntimeError: it prints none.
    """
    from marple.cli import app

    done = CliRunner().invoke(app, [*words, "--help"], prog_name="marple", env={"COLUMNS": "100", "NO_COLOR": "1"})
    if done.exit_code or not done.output:
        raise RuntimeError(f"marple {' '.join(words)} --help failed: {done.output}")
    return done.output.strip()
