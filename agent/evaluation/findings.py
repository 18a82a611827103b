"""What stands behind the scores: the gap between tools and agent, and what a *nothing found* is worth."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marple.agent.evaluation.intervals import no_interval, share_interval
from marple.agent.evaluation.rows import Row
from marple.agent.evaluation.statistics import Estimate
from marple.tasks.aggregate import mean_of

__all__ = ["nulls", "tool_gap"]

_NOTHING = 0.5
"""From this probability of nothing hidden on an answer says that nothing was found."""


def tool_gap(rows: Sequence[Row]) -> dict[str, Any]:
    """Parts of the truth that tools showed, and what became of them, added up over the runs of an arm.

    Returns:
        ``runs`` (how many have the counts) and ``total`` (of the targets that hide something), ``overall`` and
        ``by_tool``: ``n`` parts of the truth, how many were ``shown`` (by that tool), and of those ``noticed`` in a
        hypothesis and ``concluded`` in the answer. In ``overall`` the last two count what no tool showed as well.
    """
    hiding = [row for row in rows if row.clean is False]
    gaps = [row.gap for row in hiding if row.gap]
    parts = sum(int(gap["overall"]["n"]) for gap in gaps)
    tools = sorted({tool for gap in gaps for tool in gap["by_tool"]})
    return {
        "runs": len(gaps),
        "total": len(hiding),
        "overall": _summed(gap["overall"] for gap in gaps),
        "by_tool": {
            tool: {**_summed(gap["by_tool"][tool] for gap in gaps if tool in gap["by_tool"]), "n": parts}
            for tool in tools
        },
    }


def nulls(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each kind, how often an arm found nothing, beside how often it finds what is known to be there.

    Returns:
        For each kind with such an answer: ``nulls``, of these ``right`` (nothing is hidden), ``wrong`` (something is)
        and ``unknown`` (nobody knows); ``sensitivity``, the share solved of the known positives of the kind; and
        ``missed``, the share of known positives of which it said that nothing is hidden.
    """
    found = []
    for kind in sorted({row.kind for row in rows}):
        own = [row for row in rows if row.kind == kind]
        said = [row for row in own if row.nothing is not None and row.nothing >= _NOTHING]
        if not said:
            continue
        positives = [row for row in own if row.clean is False]
        found.append(
            {
                "kind": kind,
                "nulls": len(said),
                "right": sum(row.clean is True for row in said),
                "wrong": sum(row.clean is False for row in said),
                "unknown": sum(row.clean is None for row in said),
                "sensitivity": _share(positives, [row.solved if row.scored else None for row in positives]),
                "missed": _share(positives, [_missed(row) for row in positives]),
            }
        )
    return found


def _missed(row: Row) -> bool | None:
    return row.nothing >= _NOTHING if row.scored and row.nothing is not None else None


def _share(rows: Sequence[Row], marks: Sequence[bool | None]) -> dict[str, Any]:
    mean = mean_of([None if mark is None else float(mark) for mark in marks], worst=0, best=1)
    known = [(float(mark), row.organism) for row, mark in zip(rows, marks, strict=True) if mark is not None]
    if not known:
        return Estimate(mean, no_interval("no known positive of this kind was scored")).to_dict()
    return Estimate(mean, share_interval([v for v, _ in known], [name for _, name in known]).interval).to_dict()


def _summed(counts: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    total = dict.fromkeys(("n", "shown", "noticed", "concluded"), 0)
    for one in counts:
        total = {name: total[name] + int(one[name]) for name in total}
    return total
