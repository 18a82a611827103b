"""``marple export`` and ``marple import``: runs in the formats of other tools, and theirs as runs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from marple.errors import StorageError, UnknownNameError, UsageError

if TYPE_CHECKING:
    from marple.traces import RunFolder

__all__ = ["export", "import_log"]

_ENDINGS = {"html": ".html", "markdown": ".md", "notebook": ".ipynb", "inspect": ".eval", "docent": ".docent.json"}
_ONE_EACH = ("html", "markdown", "notebook")
"""Formats that hold one run a file."""


def export(
    run: Annotated[str, typer.Argument(help="A run (id, the start of one, or its folder), or an evaluation's folder.")],
    to: Annotated[str, typer.Option(help=f"One of {', '.join(_ENDINGS)}.")],
    out: Annotated[Path | None, typer.Option(help="File to write; a folder where several are written.")] = None,
    runs: Annotated[Path, typer.Option(help="Folder of the runs.")] = Path("runs"),
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
) -> None:
    """Write a run, or all runs of an evaluation, in another format."""
    if to not in _ENDINGS:
        raise UnknownNameError("format", to, _ENDINGS)
    whole = _runs_of_evaluation(Path(run))
    if whole:
        files = _export_all(whole, to, out or Path(f"{Path(run).name}-{to}"), force=force)
    else:
        from marple.traces import find_run

        found = find_run(runs, run)
        file = out or Path(f"{found.run_id}{_ENDINGS[to]}")
        _write([found], to, file, force=force)
        files = [file]
    for file in files:
        print(file)


def import_log(
    format: Annotated[str, typer.Argument(help="The log's format: inspect.")],
    file: Annotated[Path, typer.Argument(help="The log.")],
    runs: Annotated[Path, typer.Option(help="Folder that the runs are written to.")] = Path("runs"),
) -> None:
    """Make runs of another tool's log, to be read with ``marple view`` and ``marple show``."""
    if format != "inspect":
        raise UnknownNameError("format", format, ["inspect"])
    from marple.traces.exports.importing import import_inspect

    for folder in import_inspect(file, runs):
        print(folder.path)


def _runs_of_evaluation(path: Path) -> list[RunFolder]:
    """The runs of an evaluation's folder; none where it is not one."""
    from marple.traces import RunFolder, list_runs

    if not (path / "evaluation.json").is_file():
        return []
    found = [RunFolder.open(one.path) for one in list_runs(path / "runs") if one.status != "broken"]
    if not found:
        raise UsageError(f"the evaluation {str(path)!r} has no run that can be read")
    return found


def _export_all(found: Sequence[RunFolder], to: str, folder: Path, *, force: bool) -> list[Path]:
    """One file a run, or where a format holds several runs, one for each investigator and model."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--out {str(folder)!r} cannot be a folder: {error.strerror}") from error
    groups: dict[str, list[RunFolder]] = {}
    for run in sorted(found, key=lambda run: run.run_id):
        arm = "-".join(str(run.spec[key]) for key in ("arm", "investigator", "model") if run.spec.get(key))
        groups.setdefault(run.run_id if to in _ONE_EACH else arm.replace("/", "-"), []).append(run)
    files = []
    for name, runs in groups.items():
        files.append(folder / f"{name}{_ENDINGS[to]}")
        _write(runs, to, files[-1], force=force)
    return files


def _write(runs: Sequence[RunFolder], to: str, file: Path, *, force: bool) -> None:
    if file.exists() and not force:
        raise UsageError(f"{str(file)!r} is there already; give another --out, or --force to write over it")
    try:
        if to == "inspect":
            from marple.traces.exports.inspect_log import write_inspect_log

            write_inspect_log(runs, file)
        else:
            file.write_text(_text(to)(runs), encoding="utf-8")
    except OSError as error:
        raise StorageError(f"{str(file)!r} cannot be written: {error.strerror}") from error


def _text(to: str) -> Callable[[Sequence[RunFolder]], str]:
    if to == "docent":
        from marple.traces.exports.docent import docent_runs

        return docent_runs
    if to == "markdown":
        from marple.traces.exports.markdown import markdown

        return lambda runs: markdown(runs[0])
    if to == "notebook":
        from marple.traces.exports.notebook import notebook

        return lambda runs: notebook(runs[0])
    from marple.traces.exports.page import page

    return lambda runs: page(runs[0])
