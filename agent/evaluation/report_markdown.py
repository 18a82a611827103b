"""The report as Markdown: the tables without the plots."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from marple.agent.evaluation import report_text
from marple.agent.evaluation.calibration import QUESTIONS, SUBJECTS
from marple.agent.evaluation.shown import NONE, TITLES, amount, interval, missing, money, of_n, p_value, value
from marple.tools.visible import visible

__all__ = ["markdown_report"]

_SHARES = ("solved", "cleared", "false_alarms")
_MARKS = {"right": "yes", "wrong": "NO", "unscored": "no score", "not_run": "not run"}
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|!~&])")


def markdown_report(results: Mapping[str, Any]) -> str:
    """The text."""
    counts = results["counts"]
    parts = [
        f"# Evaluation: {_plain(results['evaluation']['suite'])}",
        f"{counts['arms']} arms, {counts['cases']} cases on {counts['organisms']} organisms ({counts['hiding']} cases "
        f"with something hidden, {counts['clean']} clean, {counts['unknown']} not known), {counts['epochs']} epochs: "
        f"{counts['scored']} of {counts['samples']} samples scored.",
        _listed(report_text.in_short(results)),
        "## Results",
        _headline(results),
        *_criteria(results["criteria"]),
        *_differences(results),
        "## By kind of task",
        _table(("kind", "arm", *TITLES.values(), "scored"), [_kind(row) for row in results["kinds"]]),
        "## Every case",
        _matrix(results),
        *_calibration(results["calibration"]),
        *_gap(results["gap"]),
        "## What a “nothing found” is worth",
        _nulls(results["nulls"]),
        "## How the samples ended",
        _outcomes(results),
        _listed(report_text.failures(results)),
        "## What this does and does not show",
        _listed(report_text.reading(results)),
        "## How it was made",
        _fenced(report_text.command(results)),
        _fenced(report_text.arms_file(results)) if report_text.arms_file(results) else "",
        f"Plan, SHA-256: `{_plain(results['evaluation'].get('plan_sha256') or NONE)}`",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _headline(results: Mapping[str, Any]) -> str:
    head = (
        "arm",
        *TITLES.values(),
        "experiments",
        "tokens of the agent",
        "tokens of the target",
        "seconds",
        "US dollars",
    )
    rows = [
        [
            row["arm"],
            *_measures(row),
            *(amount(row["costs"][name]) for name in ("calls", "tokens", "target_tokens", "seconds")),
            money(row["costs"]),
            f"{row['n_scored']}/{row['n_total']}",
        ]
        for row in results["headline"]
    ]
    lacking = results["controls"]["missing"]
    rows += [[one["investigator"], "not played", *[NONE] * len(head[1:])] for one in lacking]
    return _table((*head, "scored"), rows)


def _measures(row: Mapping[str, Any]) -> list[str]:
    cells = []
    for name, one in row["measures"].items():
        counted = f" ({of_n(one)})" if name in _SHARES and of_n(one) else ""
        cells.append(_estimate(name, one) + counted)
    return cells


def _estimate(name: str, one: Mapping[str, Any], *, signed: bool = False) -> str:
    """``0.92 [0.72, 0.98]``, with why there is no interval and what is missing."""
    parts = [value(name, one, signed=signed), interval(name, one, signed=signed)]
    parts.append(f"({one['why']})" if one["why"] else "")
    parts.append(f"({missing(name, one, signed=signed)})" if missing(name, one, signed=signed) else "")
    return " ".join(part for part in parts if part)


def _kind(row: Mapping[str, Any]) -> list[str]:
    return [row["kind"], row["arm"], *_measures(row), f"{row['n_scored']}/{row['n_total']}"]


def _criteria(criteria: Mapping[str, Any]) -> list[str]:
    if not criteria["criteria"]:
        return []
    told = {True: "met", False: "not met", None: "not judged here"}
    lines = [
        f"**{_plain(one['name'])}** ({told[one['met']]}; {_plain(one['how'])}):\n\n{_fenced(one['text'])}"
        for one in criteria["criteria"]
    ]
    return ["## Criteria, as written before the first run", *lines, f"SHA-256: `{_plain(criteria['sha256'])}`"]


def _differences(results: Mapping[str, Any]) -> list[str]:
    parts = ["## Differences between arms", "On the same cases in the same epochs, first arm less second."]
    for family, told in results["families"].items():
        own = [one for one in results["comparisons"] if one["family"] == family]
        rows = [
            [
                one["arm"],
                one["against"],
                TITLES[one["measure"]],
                _estimate(one["measure"], one["difference"], signed=True),
                p_value(one["p"]),
                p_value(one["p_holm"]),
                _estimate("brier", one["brier"], signed=True),
                _estimate("forecast_skill", one["forecast_skill"], signed=True),
            ]
            for one in own
        ]
        head = ("arm", "less", "of", "difference", "p", "p, adjusted", "Brier loss", "forecast skill")
        if own:
            parts += [f"One family of {len(own)}: {told}.", _table(head, rows)]
    return parts


def _matrix(results: Mapping[str, Any]) -> str:
    arms = [arm["name"] for arm in results["arms"]]
    hides = {True: "nothing", False: "something", None: "not known"}
    rows = [
        [
            row["case"],
            hides[row["clean"]],
            *(" ".join(_MARKS[cell["mark"]] for cell in row["cells"][arm]) or NONE for arm in arms),
        ]
        for row in results["matrix"]
    ]
    return _table(("case", "hides", *arms), rows)


def _calibration(found: Sequence[Mapping[str, Any]]) -> list[str]:
    names = ("ece", "ece_if_calibrated", "ece_limit", "brier", "miscalibration", "discrimination", "uncertainty")
    head = ("arm", "of", "runs or questions", "error", "if calibrated", "95 % below", "loss", *names[4:])
    rows = [
        [
            one["arm"],
            one["subject"],
            f"{one['n']}/{one['n_total']}",
            *(NONE if one[name] is None else f"{one[name]:.3f}" for name in names),
        ]
        for one in found
        if one["n_total"] or one["subject"] not in QUESTIONS
    ]
    told = "; ".join(f"*{name}*: {text}" for name, text in SUBJECTS.items())
    return ["## Calibration", f"{told}. Of forecasts the questions are counted.", _table(head, rows)]


def _gap(found: Sequence[Mapping[str, Any]]) -> list[str]:
    head = ("arm", "tool", "parts of the truth", "shown", "noticed of these", "concluded of these")
    rows = []
    for one in found:
        tools = {"any, or none": one["overall"], **one["by_tool"]}
        named = f"{one['arm']} ({one['runs']} of {one['total']} runs)"
        rows += [
            [named, tool, *(str(counts[name]) for name in ("n", "shown", "noticed", "concluded"))]
            for tool, counts in tools.items()
        ]
    return ["## Between tools and agent", _table(head, rows)]


def _nulls(found: Sequence[Mapping[str, Any]]) -> str:
    head = (
        "arm",
        "kind",
        "nothing found",
        "right",
        "wrong",
        "not known",
        "solves known positives",
        "says nothing of them",
    )
    rows = [
        [
            one["arm"],
            one["kind"],
            *(str(one[name]) for name in ("nulls", "right", "wrong", "unknown")),
            _estimate("solved", one["sensitivity"]),
            _estimate("solved", one["missed"]),
        ]
        for one in found
    ]
    return _table(head, rows) if rows else "No answer gave one half or more to nothing hidden."


def _outcomes(results: Mapping[str, Any]) -> str:
    statuses = report_text.statuses(results)
    rows = [
        [one["arm"], *(str(one["by_status"].get(s, 0)) for s in statuses), str(one["n"])] for one in results["outcomes"]
    ]
    return _table(("arm", *statuses, "all"), rows)


def _table(head: Iterable[str], rows: Iterable[Sequence[str]]) -> str:
    columns = [_plain(one) for one in head]
    lines = [columns, ["---"] * len(columns), *([_plain(cell) for cell in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _listed(lines: Iterable[str]) -> str:
    return "\n".join(f"- {_plain(line)}" for line in lines)


def _fenced(text: str) -> str:
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{visible(text, lines=True)}\n{fence}"


def _plain(text: str) -> str:
    """Text that stays text in Markdown, on one line; brackets of intervals need no escape of their own."""
    shown = visible(str(text))
    return re.sub(r"\\\[([-+0-9., ]+)\\\]", r"[\1]", _SPECIAL.sub(r"\\\1", shown))
