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
from marple.traces.exports.inspect_steps import events_of, messages_of, moment, usage_of
from marple.traces.exports.steps import steps_of
from marple.traces.exports.verdict import claims_of, headline, verdict_lines
from marple.traces.run_folder import RunFolder

if TYPE_CHECKING:
    from inspect_ai.log import EvalLog, EvalSample
    from inspect_ai.model import ModelUsage
    from inspect_ai.scorer import Score

__all__ = ["inspect_log", "write_inspect_log"]

_SHARES = ("solved", "cleared", "scored")
_NUMBERS = ("brier", "log", "nothing_brier", "score", "auroc")


def write_inspect_log(runs: Sequence[RunFolder], path: Path, *, name: str = "marple") -> None:
    """Write runs as one log.

    Args:
        runs: at least one, of one arm; those of the same case become its epochs.
        path: ends in ``.eval`` or ``.json``.
        name: of the task, as Inspect lists it.

    Raises:
        UsageError: Inspect is not installed, or the path ends otherwise.
    """
    if path.suffix not in (".eval", ".json"):
        raise UsageError(f"an Inspect log is named *.eval or *.json, not {path.name!r}")
    log = inspect_log(runs, name=name)
    from inspect_ai.log import write_eval_log

    write_eval_log(log, str(path))


def inspect_log(runs: Sequence[RunFolder], *, name: str = "marple") -> EvalLog:
    """Runs as an Inspect log in memory.

    Raises:
        UsageError: Inspect is not installed.
        CorruptTraceError: a run cannot be read.
    """
    try:
        from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, EvalStats
    except ImportError as error:
        raise UsageError("exporting to Inspect needs its package: pip install inspect-ai") from error
    first = runs[0].spec
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
        dataset=EvalDataset(name=name, samples=len(runs), sample_ids=sorted(epochs)),
        model=str(first.get("model") or first.get("investigator")),
        model_base_url=first.get("base_url"),
        config=EvalConfig(epochs=max(epochs.values())),
        packages=dict(first.get("versions", {})),
        metadata={"investigator": first.get("investigator"), "written_by": "marple"},
    )
    stats = EvalStats(started_at=moment(first.get("created", 0.0)), completed_at=moment(_ended(runs[-1])))
    return EvalLog(
        version=2,
        status="success" if len(done) == len(runs) else "cancelled",
        eval=spec,
        results=EvalResults(total_samples=len(runs), completed_samples=len(done), scores=_metrics(samples)),
        stats=stats,
        samples=samples,
    )


def _sample(run: RunFolder, epoch: int) -> EvalSample:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ModelOutput

    steps, result = steps_of(run), run.result or {}
    attachments: dict[str, str] = {}
    messages = messages_of(run, steps, attachments)
    summary = "\n".join(verdict_lines(result)) if result else headline(run)
    answer = json.dumps(result.get("answer"), ensure_ascii=False)
    return EvalSample(
        id=str(run.spec.get("case")),
        epoch=epoch,
        input=next((step.text for step in steps if step.kind == "brief"), ""),
        target=json.dumps(result.get("truth"), ensure_ascii=False),
        messages=messages,
        output=ModelOutput.from_content(str(run.spec.get("model") or run.spec.get("investigator")), answer),
        scores=_scores(result, summary),
        metadata=_flat(run, result),
        events=events_of(run, steps, messages, attachments),
        role_usage=_usage(result),
        attachments=attachments,
        started_at=moment(run.spec.get("created", 0.0)),
        completed_at=moment(_ended(run)),
        uuid=run.run_id,
    )


def _scores(result: Mapping[str, Any], summary: str) -> dict[str, Score]:
    """The scores that are one number, each by its name; a run without a score has none."""
    from inspect_ai.scorer import Score

    scores = result.get("scores") or {}
    answer = json.dumps((result.get("answer") or {}).get("summary"), ensure_ascii=False)
    return {
        name: Score(value=scores[name], answer=answer, explanation=summary)
        for name in (*_SHARES, *_NUMBERS)
        if isinstance(scores.get(name), bool | int | float)
    }


def _metrics(samples: Sequence[EvalSample]) -> list[Any]:
    """The mean of every score, with how many samples it is over and how many have none."""
    from inspect_ai.log import EvalMetric, EvalScore

    names = sorted({name for sample in samples for name in sample.scores or {}})
    metrics = []
    for name in names:
        values = [float(s.scores[name].value) for s in samples if s.scores and name in s.scores]  # type: ignore[arg-type]
        metrics.append(
            EvalScore(
                name=name,
                scorer=name,
                scored_samples=len(values),
                unscored_samples=len(samples) - len(values),
                metrics={"mean": EvalMetric(name="mean", value=sum(values) / len(values))},
            )
        )
    return metrics


def _usage(result: Mapping[str, Any]) -> dict[str, ModelUsage]:
    usage = (result.get("usage") or {}).get("investigator")
    return {"investigator": usage_of(usage)} if usage else {}


def _flat(run: RunFolder, result: Mapping[str, Any]) -> dict[str, Any]:
    """What a table can sort and filter by."""
    spec, usage = run.spec, result.get("usage") or {}
    known = {name: spec.get(name) for name in ("run_id", "case", "kind", "investigator", "model", "seed")}
    amounts = {name: usage.get(name) for name in ("turns", "calls", "target_tokens", "seconds")}
    marks = [mark.split(":")[0] for _, mark in claims_of(result)]
    return {
        **known,
        "status": result.get("status") or run.status,
        **amounts,
        "claims": len(marks),
        "claims_replicated": marks.count("replicated"),
    }


def _ended(run: RunFolder) -> float:
    events: list[Event] = run.events()
    return events[-1].ts if events else _number(run.spec.get("created"))


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
