"""Runs as an Inspect log: a ``.eval`` file that ``inspect view`` opens and ``read_eval_log`` reads.

A run is a sample. Its steps stand twice, as messages, which other tools read, and as events. What Inspect has no place
for (notebook entries, replications, forecasts) is an info event. Plots are attached to the results they belong to.

Written for the log format of Inspect 0.3 (https://inspect.aisi.org.uk/eval-logs.html).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from marple.errors import UsageError
from marple.traces.event import Event
from marple.traces.exports.inspect_scores import means_of, scores_of, viewer
from marple.traces.exports.inspect_steps import events_of, messages_of, moment, usage_of
from marple.traces.exports.steps import steps_of
from marple.traces.exports.verdict import answer_line, claims_of, truth_line
from marple.traces.run_folder import RunFolder

if TYPE_CHECKING:
    from inspect_ai.log import EvalError, EvalLog, EvalSample
    from inspect_ai.model import ModelUsage

__all__ = ["inspect_log", "write_inspect_log"]


def write_inspect_log(runs: Sequence[RunFolder], path: Path, *, name: str = "") -> None:
    """Write runs as one log.

    Args:
        runs: at least one, of one arm; those of the same case become its epochs.
        path: ends in ``.eval`` or ``.json``.
        name: of the task, as Inspect lists it; '' for the case that all have in common, or its kind.

    Raises:
        UsageError: Inspect is not installed, or the path ends otherwise.
    """
    if path.suffix not in (".eval", ".json"):
        raise UsageError(f"an Inspect log is named *.eval or *.json, not {path.name!r}")
    log = inspect_log(runs, name=name)
    from inspect_ai.log import write_eval_log

    write_eval_log(log, str(path))


def inspect_log(runs: Sequence[RunFolder], *, name: str = "") -> EvalLog:
    """Runs as an Inspect log in memory; ``name`` is that of its task (see ``write_inspect_log``).

    Raises:
        UsageError: Inspect is not installed.
        CorruptTraceError: a run cannot be read.
    """
    try:
        from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, EvalStats
    except ImportError as error:
        raise UsageError("exporting to Inspect needs its package: pip install inspect-ai") from error
    first, name = runs[0].spec, name or _shared_name(runs)
    epochs: dict[str, int] = {}
    samples = []
    for run in runs:
        case = str(run.spec.get("case"))
        epochs[case] = epochs.get(case, 0) + 1
        samples.append(_sample(run, epochs[case]))
    done = [run for run in runs if run.result is not None]
    spec = EvalSpec(
        created=moment(first.get("created", 0.0)),
        run_id=str(first.get("run_id")),
        task=name,
        task_id=str(first.get("run_id")),
        dataset=EvalDataset(name=name, samples=len(epochs), sample_ids=sorted(epochs)),
        model=str(first.get("model") or first.get("investigator")),
        model_base_url=first.get("base_url"),
        # Where cases were not played equally often, Inspect would count in fractions of a sample.
        config=EvalConfig(epochs=max(epochs.values()) if len(set(epochs.values())) == 1 else 1),
        packages=dict(first.get("versions", {})),
        metadata={"investigator": first.get("investigator"), "written_by": "marple"},
        viewer=viewer(),
    )
    stats = EvalStats(
        started_at=moment(min(_number(run.spec.get("created")) for run in runs)),
        completed_at=moment(max(_ended(run) for run in runs)),
        model_usage=_sum([sample.model_usage for sample in samples]),
        role_usage=_sum([sample.role_usage or {} for sample in samples]),
    )
    return EvalLog(
        version=2,
        status="success" if len(done) == len(runs) else "cancelled",
        eval=spec,
        results=EvalResults(total_samples=len(runs), completed_samples=len(done), scores=means_of(samples)),
        stats=stats,
        samples=samples,
    )


def _sample(run: RunFolder, epoch: int) -> EvalSample:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ModelOutput

    steps, result = steps_of(run), run.result or {}
    attachments: dict[str, str] = {}
    messages = messages_of(run, steps, attachments)
    model = str(run.spec.get("model") or run.spec.get("investigator"))
    usage = _usage(result)
    return EvalSample(
        id=str(run.spec.get("case")),
        epoch=epoch,
        input=next((step.text for step in steps if step.kind == "brief"), ""),
        target=truth_line(result),
        messages=messages,
        output=ModelOutput.from_content(model, answer_line(result)),
        scores=scores_of(result),
        metadata=_flat(run, result),
        events=events_of(run, steps, messages, attachments),
        error=_error(run, result),
        model_usage={model: usage["investigator"]} if usage else {},
        role_usage=usage,
        total_time=_number((result.get("usage") or {}).get("seconds")) or None,
        attachments=attachments,
        started_at=moment(run.spec.get("created", 0.0)),
        completed_at=moment(_ended(run)),
        uuid=run.run_id,
    )


def _shared_name(runs: Sequence[RunFolder]) -> str:
    """What the runs have in common that names them best: their case, their kind of case, or Marple."""
    for key in ("case", "kind"):
        known = {run.spec.get(key) for run in runs}
        if len(known) == 1 and isinstance(shared := known.pop(), str) and shared:
            return shared
    return "marple"


def _error(run: RunFolder, result: Mapping[str, Any]) -> EvalError | None:
    from inspect_ai.log import EvalError

    if result.get("status") != "error":
        return None
    failed = next((event.payload for event in reversed(run.events()) if event.type == "error"), {})
    said = str(failed.get("message") or "the run ended with an error that its log does not name")
    trace = str(failed.get("traceback") or said)
    return EvalError(message=said, traceback=trace, traceback_ansi=trace)


def _usage(result: Mapping[str, Any]) -> dict[str, ModelUsage]:
    usage = (result.get("usage") or {}).get("investigator")
    return {"investigator": usage_of(usage)} if usage else {}


def _sum(usages: Sequence[Mapping[str, ModelUsage]]) -> dict[str, ModelUsage]:
    total: dict[str, ModelUsage] = {}
    for usage in usages:
        for name, one in usage.items():
            total[name] = total[name] + one if name in total else one
    return total


def _flat(run: RunFolder, result: Mapping[str, Any]) -> dict[str, Any]:
    """What a table can sort and filter by."""
    spec, usage = run.spec, result.get("usage") or {}
    known = {name: spec.get(name) for name in ("run_id", "case", "kind", "investigator", "model", "seed")}
    amounts = {name: usage.get(name) for name in ("turns", "calls", "target_tokens", "seconds")}
    marks = [mark.split(":")[0] for _, mark in claims_of(result)]
    scores, answer = result.get("scores") or {}, result.get("answer") or {}
    return {
        **known,
        "status": result.get("status") or run.status,
        **amounts,
        "claims": len(marks),
        "claims_replicated": marks.count("replicated"),
        "scored": scores.get("scored"),
        "answer": json.dumps(answer, ensure_ascii=False),
        "truth": json.dumps(result.get("truth"), ensure_ascii=False),
    }


def _ended(run: RunFolder) -> float:
    events: list[Event] = run.events()
    return events[-1].ts if events else _number(run.spec.get("created"))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
