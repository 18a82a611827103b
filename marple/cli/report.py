"""``marple report``: the report of an evaluation, made again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

__all__ = ["report"]


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of the evaluation, finished or not.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print the results as one JSON object.")] = False,
) -> None:
    """Write the report of an evaluation: report.html, report.md, results.json, results.csv and samples.csv."""
    from marple.agent.evaluation.report import write_report
    from marple.tools.visible import visible

    written = write_report(folder)
    if as_json:
        print(json.dumps(json.loads((folder / "results.json").read_text(encoding="utf-8"))))
        return
    for path in written:
        print(visible(str(path)))
