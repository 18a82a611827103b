"""How a report writes numbers: once, so that all its forms agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["FORMATS", "TITLES", "amount", "interval", "missing", "money", "of_n", "p_value", "value"]

NONE = "–"

FORMATS = {"brier": ".3f", "forecast_skill": "+.2f"}
"""By measure; shares have two digits."""

TITLES = {
    "balanced_accuracy": "balanced accuracy",
    "solved": "solved",
    "cleared": "cleared",
    "false_alarms": "false alarms",
    "brier": "Brier loss",
    "forecast_skill": "forecast skill",
    "claims_replicated": "claims replicated",
}


def value(name: str, estimate: Mapping[str, Any], *, signed: bool = False) -> str:
    """The mean of a measure, or a dash."""
    if estimate["value"] is None:
        return NONE
    form = FORMATS.get(name, ".2f")
    digits = int(form[-2])
    # Rounded first, and a zero added, so that no value is written as -0.00.
    return format(round(estimate["value"], digits) + 0.0, f"+{form}" if signed and not form.startswith("+") else form)


def interval(name: str, estimate: Mapping[str, Any], *, signed: bool = False) -> str:
    """``[0.72, 0.98]``; empty where there is none."""
    if estimate["low"] is None or estimate["high"] is None:
        return ""
    ends = ({"value": estimate[end]} for end in ("low", "high"))
    return f"[{', '.join(value(name, end, signed=signed) for end in ends)}]"


def missing(name: str, estimate: Mapping[str, Any], *, signed: bool = False) -> str:
    """``22/24 scored, 0.88 to 0.96`` where something is missing; otherwise empty: the range with all of them."""
    if estimate["n"] == estimate["n_total"] or estimate["worst"] is None or estimate["best"] is None:
        return ""
    low, high = sorted((estimate["worst"], estimate["best"]))
    ends = [value(name, {"value": end}, signed=signed) for end in (low, high)]
    return f"{estimate['n']}/{estimate['n_total']} scored, {ends[0]} to {ends[1]}"


def of_n(estimate: Mapping[str, Any]) -> str:
    """``22 of 24``, for a share of runs; empty where there are none."""
    if estimate["value"] is None:
        return ""
    return f"{round(estimate['value'] * estimate['n'])} of {estimate['n']}"


def amount(number: float | None) -> str:
    """A mean amount: whole above 100, one digit below."""
    if number is None:
        return NONE
    return f"{number:,.0f}" if number >= 100 or number == int(number) else f"{number:.1f}"


def money(costs: Mapping[str, Any]) -> str:
    """US dollars of all runs; what is unknown is never shown as 0."""
    known, unknown, begun = costs["cost_usd"], costs["cost_unknown"], costs["begun"]
    if not begun:
        return NONE
    if unknown == begun:
        return "unknown"
    said = f"${known:,.2f}" if known >= 0.005 or known == 0 else "under $0.01"
    return f"{said} and {unknown} of {begun} unknown" if unknown else said


def p_value(p: float | None) -> str:
    """``0.031``, or ``<0.001``."""
    if p is None:
        return NONE
    return "<0.001" if p < 0.001 else f"{p:.3f}"
