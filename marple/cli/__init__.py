"""The ``marple`` command.

Exit codes: 0 the command did what it says (for a run: it ended with an answer that counts, whatever its score),
1 something failed, 2 something typed or configured is wrong, 3 a run ended without an answer that counts,
130 a run was interrupted and can be resumed.
"""

from __future__ import annotations

import sys

import typer

from marple.cli import (
    control,
    demo,
    diff,
    doctor,
    evaluate,
    export,
    judge,
    organisms,
    play,
    report,
    run,
    runs,
    sae,
    sandbox,
    score,
    serve_mcp,
    show,
    tail,
    tasks,
    tool,
    view,
)
from marple.errors import MarpleError, UsageError
from marple.tools.visible import visible

__all__ = ["app", "main"]

app = typer.Typer(
    name="marple",
    help="An automated interpretability agent: launch investigations of a language model and read what they found.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
app.command("demo")(demo.demo)
app.command("run")(run.run)
app.command("resume")(run.resume)
app.add_typer(play.app, name="play")
app.command("serve-mcp")(serve_mcp.serve_mcp)
app.command("evaluate")(evaluate.evaluate)
app.command("report")(report.report)
app.command("runs")(runs.runs)
app.command("show")(show.show)
app.command("tail")(tail.tail)
app.command("diff")(diff.diff)
app.command("pause")(control.pause)
app.command("go")(control.go)
app.command("cancel")(control.cancel)
app.command("view")(view.view)
app.command("export")(export.export)
app.command("import")(export.import_log)
app.command("score")(score.score)
app.command("tool")(tool.tool)
app.add_typer(tasks.app, name="tasks")
app.add_typer(organisms.app, name="organisms")
app.add_typer(judge.app, name="judge")
app.add_typer(sae.app, name="sae")
app.add_typer(sandbox.app, name="sandbox")
app.command("doctor")(doctor.doctor)


def main() -> None:
    """Entry point of the console script."""
    try:
        app()
    except UsageError as error:
        _say(str(error))
        sys.exit(2)
    except MarpleError as error:
        _say(f"{type(error).__name__}: {error}")
        sys.exit(1)
    except KeyboardInterrupt:
        print("marple: interrupted", file=sys.stderr)
        sys.exit(130)


def _say(message: str) -> None:
    # An error may quote a file's name, a target or a worker.
    print(f"marple: {visible(message, lines=True)}", file=sys.stderr)
