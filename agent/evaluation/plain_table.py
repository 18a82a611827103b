"""The results in a few lines, for a terminal: one row an arm. The report has more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marple.agent.evaluation.folder import EvaluationFolder
from marple.agent.evaluation.sample_log import SampleState
from marple.errors import TraceError
from marple.tasks.aggregate import aggregate
from marple.traces import RunFolder

__all__ = ["plain_table"]


def plain_table(path: Path) -> list[dict[str, str]]:
    """The rows of the table; every value is a text, and what is missing is told in it.

    Args:
        path: an evaluation's folder.
    """
    folder = EvaluationFolder(path)
    plan, log = folder.plan(), folder.log()
    samples = plan.samples()
    results = {sample.key: _result(folder, log.states.get(sample.key)) for sample in samples}
    # What was lost counts among the organisms, or the clean targets, by what others of its case know of the truth.
    truths = {s.case: r["truth"] for s in samples if (r := results[s.key]) is not None and r["truth"] is not None}
    rows = []
    for arm in plan.arms:
        own = [sample for sample in samples if sample.arm.name == arm.name]
        played = [results[s.key] or _lost(truths.get(s.case), begun=s.key in log.states) for s in own]
        rows.append(_row(arm.name, played))
    return rows


def _lost(truth: Any, *, begun: bool) -> dict[str, Any]:
    return {"truth": truth, "scores": {}, "status": "not finished" if begun else "not run"}


def _row(arm: str, results: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    means = aggregate(results)
    endings = Counter(str(result["status"]) for result in results if not result["scores"].get("scored"))
    scored = sum(bool(result["scores"].get("scored")) for result in results)
    shown = ("solved", "cleared", "balanced_accuracy", "brier")
    return {
        "arm": arm,
        "scored": f"{scored}/{len(results)}",
        **{name.replace("_", " "): str(means[name]) for name in shown},
        "without a score": ", ".join(f"{n} {status}" for status, n in endings.items()) or "-",
    }


def _result(folder: EvaluationFolder, state: SampleState | None) -> dict[str, Any] | None:
    if state is None:
        return None
    try:
        return RunFolder.open(folder.runs / state.run_id).result
    except TraceError:
        return None
