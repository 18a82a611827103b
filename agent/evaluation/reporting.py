"""Where the report of an evaluation is asked for."""

from __future__ import annotations

import importlib
from pathlib import Path

__all__ = ["make_report"]


def make_report(path: Path) -> list[Path]:
    """Write the report of an evaluation's folder.

    Returns:
        The files that were written; none where this Marple writes no reports.
    """
    name = "marple.agent.evaluation.report"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        return []
    written = module.write_report(path)
    return [Path(one) for one in (written.values() if isinstance(written, dict) else written)]
