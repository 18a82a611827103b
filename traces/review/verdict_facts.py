"""The figures beside a run's verdict: what it scored, in a few words each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marple.traces.review.fields import mapping, number, of

__all__ = ["Fact", "facts"]

_COMMON = ("scored", "solved", "cleared", "brier", "log", "nothing_brier")


@dataclass(frozen=True)
class Fact:
    """A short line of what is known."""

    name: str
    value: str
    tone: str = ""
    note: str = ""


def facts(scores: Mapping[str, Any]) -> list[Fact]:
    """The figures that a score holds, those that all kinds of task have first."""
    found = []
    if (brier := number(scores.get("brier"))) is not None:
        found.append(Fact("Brier", f"{brier:.3f}", note="0 best, 2 worst"))
    forecast = mapping(scores.get("forecast"))
    if forecast.get("n") and (skill := number(forecast.get("skill"))) is not None:
        share = number(forecast.get("accuracy"))
        told = "" if share is None else f"{100 * share:.0f} % right, "
        note = f"{told}{forecast.get('n')} of {forecast.get('n_total')} held-out prompts"
        found.append(Fact("forecast skill", f"{skill:+.2f}", _sign(skill), note))
    fires = mapping(scores.get("fires"))
    if fires.get("n"):
        skill = number(fires.get("skill"))
        note = f"does it show? {fires.get('n')} of {fires.get('n_total')} prompts"
        value = "–" if skill is None else f"{skill:+.2f}"
        found.append(Fact("forecast skill", value, "" if skill is None else _sign(skill), note))
    again = mapping(scores.get("replication"))
    if again.get("n_total"):
        tone = "good" if again.get("n") == again.get("n_total") else "" if again.get("n") else "unsure"
        found.append(Fact("claims replicated", f"{again.get('n')} of {again.get('n_total')}", tone))
    return [*found, *_own(scores), *_counts(scores)]


def _own(scores: Mapping[str, Any]) -> list[Fact]:
    """What a kind of task scores beside what all have."""
    found = []
    for name, value in scores.items():
        real = number(value)
        if name in _COMMON or (real is None and not isinstance(value, bool)):
            continue
        said = f"{real:.3g}" if real is not None else "yes" if value else "no"
        found.append(Fact(name.replace("_", " "), said))
    return found[:6]


def _counts(scores: Mapping[str, Any]) -> list[Fact]:
    overall = mapping(of(scores, "gap", "overall"))
    if not overall.get("n"):
        return []
    n, parts = overall["n"], [f"{overall.get(key)} {key}" for key in ("shown", "noticed", "concluded")]
    return [Fact("of the truth", ", ".join(parts), note=f"of {n} part{'s' if n != 1 else ''}, read off the trace")]


def _sign(value: float) -> str:
    return "good" if value > 0.05 else "bad" if value < -0.05 else ""
