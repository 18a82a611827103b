"""The report as one HTML page that needs nothing else: its style and its plots are in it, and no script is."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from marple.agent.evaluation import report_text, shown
from marple.agent.evaluation.calibration import QUESTIONS, SUBJECTS
from marple.agent.evaluation.curves import COSTS
from marple.agent.evaluation.plots import arms_plot, calibration_plot, cost_plot, interval_bar
from marple.tools.visible import visible

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

__all__ = ["html_report"]

_MARKS = {"right": "✓", "wrong": "✗", "unscored": "!", "not_run": "·"}


def html_report(results: Mapping[str, Any]) -> str:
    """The page.

    Args:
        results: the document of `results_of`; its texts may be anybody's and are escaped.
    """
    safe: dict[str, Any] = _visible(results)
    places = {arm["name"]: at % 8 for at, arm in enumerate(safe["arms"])}
    return _template().render(
        r=safe,
        places=places,
        css=_markup(_file("report.css")),
        short=report_text.in_short(safe),
        reading=report_text.reading(safe),
        failures=report_text.failures(safe),
        statuses=report_text.statuses(safe),
        created=report_text.begun(safe),
        command=report_text.command(safe),
        arms_file=report_text.arms_file(safe),
        versions=safe["versions"]
        or {"marple": [(safe["evaluation"].get("versions") or {}).get("marple", "not known")]},
        subjects=SUBJECTS,
        questions=QUESTIONS,
        shown_costs={cost: COSTS[cost][0] for cost in COSTS if _spent(safe, cost)},
        **_drawn(safe, places),
        **_written(),
    )


def _drawn(results: Mapping[str, Any], places: Mapping[str, int]) -> dict[str, Any]:
    """What draws: each gives a plot as it stands in the page."""

    def bar(row: Mapping[str, Any]) -> Markup:
        one = row["measures"]["balanced_accuracy"]
        title = f"{row['arm']}: balanced accuracy {shown.value('', one)} {shown.interval('', one)}, chance 0.5"
        return _markup(interval_bar(one, least=0, most=1, mark=0.5, arm=places[row["arm"]], title=title))

    def difference_bar(row: Mapping[str, Any]) -> Markup:
        one = row["difference"]
        said = f"{shown.value('', one, signed=True)} {shown.interval('', one, signed=True)}"
        title = f"{row['arm']} less {row['against']}: {said}"
        return _markup(interval_bar(one, least=-1, most=1, mark=0, arm=places[row["arm"]], title=title))

    def calibration_figure(one: Mapping[str, Any]) -> Markup:
        what = "questions" if one["subject"] in QUESTIONS else "runs"
        told = "; ".join(
            f"{b['n']} {what} stated {b['stated']:.2f}, came true {b['happened']:.2f}" for b in one["bins"]
        )
        return _markup(
            calibration_plot(one, arm=places[one["arm"]], title=f"Calibration of {one['arm']}: {told or 'none'}")
        )

    def cost_figure(cost: str) -> Markup:
        curves = [one for one in results["curves"] if one["cost"] == cost]
        ends = "; ".join(f"{one['arm']} {one['points'][-1][1] if one['points'] else 0:.2f}" for one in curves)
        return _markup(cost_plot(curves, title=f"Share right against {COSTS[cost][0]}, at the end: {ends}"))

    def arms_figure(cost: str) -> Markup:
        points = _points(results, places, cost)
        told = "; ".join(f"{one['arm']} {one['value']:.2f} at {shown.amount(one['cost'])}" for one in points)
        title = f"Balanced accuracy against mean {COSTS[cost][0]}: {told or 'none'}"
        return _markup(arms_plot(points, results["series"], title=title))

    def unpriced(cost: str) -> int:
        return sum(one["unknown"] for one in results["curves"] if one["cost"] == cost)

    return {
        "arms_figure": arms_figure,
        "unpriced": unpriced,
        "bar": bar,
        "difference_bar": difference_bar,
        "calibration_figure": calibration_figure,
        "cost_figure": cost_figure,
    }


def _written() -> dict[str, Any]:
    """What writes numbers and marks."""
    return {
        "value": lambda name, one, signed=False: shown.value(name, one, signed=signed),
        "interval": lambda name, one, signed=False: shown.interval(name, one, signed=signed),
        "missing": lambda name, one, signed=False: shown.missing(name, one, signed=signed),
        "of_n": shown.of_n,
        "amount": shown.amount,
        "money": shown.money,
        "p_value": shown.p_value,
        "titles": shown.TITLES,
        "plural": lambda n, word: word if n == 1 else f"{word}s",
        "mark": _mark,
    }


def _mark(cell: Mapping[str, Any]) -> Markup:
    """One sample of the matrix, as a link to its run where there is one."""
    from markupsafe import Markup

    told = f"epoch {cell['epoch']}: {cell['mark'].replace('_', ' ')}, {cell['status']}"
    told += f", {cell['error']}" if cell["error"] else ""
    sign = _MARKS[cell["mark"]]
    if not cell["run"].startswith("runs/") or ".." in cell["run"]:
        return Markup('<span class="mark {}" title="{}">{}</span>').format(cell["mark"], told, sign)
    link = '<a class="mark {}" href="{}/" title="{}" aria-label="{}">{}</a>'
    return Markup(link).format(cell["mark"], quote(cell["run"], safe="/"), told, told, sign)


def _points(results: Mapping[str, Any], places: Mapping[str, int], cost: str) -> list[dict[str, Any]]:
    """Balanced accuracy and mean cost of every arm that has both."""
    found = []
    for row in results["headline"]:
        one, spent = row["measures"]["balanced_accuracy"], row["costs"][cost]
        if one["value"] is not None and spent is not None:
            ends = {name: one[name] for name in ("value", "low", "high")}
            found.append({"arm": row["arm"], "place": places[row["arm"]], "cost": spent, **ends})
    return found


def _spent(results: Mapping[str, Any], cost: str) -> bool:
    return any(amount > 0 for one in results["curves"] if one["cost"] == cost for amount, _ in one["points"])


def _visible(value: Any) -> Any:
    """The same with characters that could hide or turn text around written as escapes."""
    if isinstance(value, str):
        return visible(value, lines=True)
    if isinstance(value, Mapping):
        return {_visible(name): _visible(item) for name, item in value.items()}
    return [_visible(item) for item in value] if isinstance(value, list | tuple) else value


def _markup(text: str) -> Markup:
    from markupsafe import Markup

    return Markup(text)


def _file(name: str) -> str:
    return resources.files("marple.agent.evaluation").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(_file("report.html"))
