"""What a run is worth, as Inspect shows it: its scores by name, their means, and how a viewer colours them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from marple.traces.exports.verdict import answer_line, claims_of, verdict_lines
from marple.traces.review.fields import mapping, number

if TYPE_CHECKING:
    from inspect_ai.log import EvalSample
    from inspect_ai.scorer import Score
    from inspect_ai.viewer import ViewerConfig

__all__ = ["means_of", "scores_of", "viewer"]

_RIGHT = "right"
"""Solved, or cleared where nothing was hidden: the one score that every scored run has. Inspect's lists show the answer
and the value of the first score."""
_SHARES = (_RIGHT, "solved", "cleared")
_NUMBERS = ("score", "auroc", "brier", "log", "nothing_brier")
_FURTHER = ("forecast_skill", "claims_replicated")
_DIGITS = 6


def scores_of(result: Mapping[str, Any]) -> dict[str, Score]:
    """The scores that are one number, what counts most first; a run without a score has none."""
    from inspect_ai.scorer import Score

    scores = mapping(result.get("scores"))
    values = {name: scores.get(name) for name in (*_SHARES, *_NUMBERS)} | _further(result)
    values[_RIGHT] = next((scores[name] for name in _SHARES if isinstance(scores.get(name), bool)), None)
    known: dict[str, bool | float] = {}
    for name, value in values.items():
        real = number(value)
        if isinstance(value, bool):
            known[name] = value
        elif real is not None:
            known[name] = round(real, _DIGITS)
    # A line is a paragraph, since the viewer reads it as Markdown.
    said, why = answer_line(result), "\n\n".join(verdict_lines(result))
    return {
        name: Score(value=value, answer=said, explanation=None if place else why)
        for place, (name, value) in enumerate(known.items())
    }


def means_of(samples: Sequence[EvalSample]) -> list[Any]:
    """The mean of every score, with how many samples it is over and how many have none."""
    from inspect_ai.log import EvalMetric, EvalScore

    known = {name for sample in samples for name in sample.scores or {}}
    metrics = []
    for name in (one for one in (*_SHARES, *_NUMBERS, *_FURTHER) if one in known):
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


def viewer() -> ViewerConfig:
    """Which scores are good when they are high, and which when they are low."""
    from inspect_ai.viewer import SampleScoreView, ScoreColorScale, TaskSamplesView, ViewerConfig

    scales = {
        "brier": ScoreColorScale(palette="good-low", min=0.0, max=2.0),
        "nothing_brier": ScoreColorScale(palette="good-low", min=0.0, max=1.0),
        "forecast_skill": ScoreColorScale(palette="good-high", min=-1.0, max=1.0),
        "claims_replicated": ScoreColorScale(palette="good-high", min=0.0, max=1.0),
    }
    return ViewerConfig(
        sample_score_view=SampleScoreView(default="grid"),
        task_samples_view=TaskSamplesView(name="Runs", score_color_scales=scales, color_scales_enabled=True),
    )


def _further(result: Mapping[str, Any]) -> dict[str, float | None]:
    scores = mapping(result.get("scores"))
    skill = number(mapping(scores.get("forecast")).get("skill"))
    marks = [mark.split(":")[0] for _, mark in claims_of(result) if mark != "not replayed"]
    return {
        "forecast_skill": skill if skill is not None else number(mapping(scores.get("fires")).get("skill")),
        "claims_replicated": marks.count("replicated") / len(marks) if marks else None,
    }
