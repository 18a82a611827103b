"""The report of an evaluation: one document of results, written as HTML, Markdown, JSON and CSV."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from marple.agent.evaluation.folder import EvaluationFolder, rows_in
from marple.agent.evaluation.report_html import html_report
from marple.agent.evaluation.report_markdown import markdown_report
from marple.agent.evaluation.report_tables import results_csv, samples_csv
from marple.agent.evaluation.rows import Row
from marple.agent.evaluation.tables import results_of
from marple.traces.durable import write_atomic

__all__ = ["FILES", "report_files", "write_report"]

FILES = ("report.html", "report.md", "results.json", "results.csv", "samples.csv")
"""What a report consists of."""


def write_report(path: Path) -> list[Path]:
    """Write the report of an evaluation's folder; one that was there is replaced.

    Args:
        path: the folder; an unfinished evaluation has a report too, which says what is missing.

    Returns:
        The files that were written.

    Raises:
        UsageError: it is no evaluation's folder.
        CorruptTraceError: it cannot be read.
        StorageError: the disk refused a file.
    """
    rows, document = rows_in(path), EvaluationFolder(path).document()
    written = []
    for name, text in report_files(rows, document, versions=_versions(path, rows)).items():
        write_atomic(path / name, text.encode("utf-8", errors="backslashreplace"))
        written.append(path / name)
    return written


def report_files(
    rows: Iterable[Row], document: Mapping[str, Any], *, versions: Mapping[str, list[str]] | None = None
) -> dict[str, str]:
    """The content of each of `FILES`; the same arguments give the same text.

    Args:
        rows: one for every sample.
        document: the content of ``evaluation.json``.
        versions: by package, the versions that the runs were played with.
    """
    results = {**results_of(rows, document), "versions": dict(versions or {})}
    return {
        "report.html": html_report(results),
        "report.md": markdown_report(results),
        "results.json": json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        "results.csv": results_csv(results),
        "samples.csv": samples_csv(results),
    }


def _versions(path: Path, rows: Iterable[Row]) -> dict[str, list[str]]:
    """By package, every version that a run says it was played with."""
    found: dict[str, set[str]] = {}
    for row in rows:
        try:
            said = json.loads((path / row.run / "run.json").read_bytes()) if row.run else {}
        except (OSError, ValueError):
            continue
        for name, version in (said.get("versions") or {}).items():
            found.setdefault(str(name), set()).add(str(version))
    return {name: sorted(found[name]) for name in sorted(found)}
