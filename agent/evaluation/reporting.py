"""Where the report of an evaluation is asked for."""

from __future__ import annotations

from pathlib import Path

__all__ = ["make_report"]


def make_report(path: Path) -> list[Path]:
    """Write the report of an evaluation's folder; returns the files that were written."""
    from marple.agent.evaluation.report import write_report

    return write_report(path)
