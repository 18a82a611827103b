"""The plots of a report: SVG that stands in the page, coloured by its style sheet, readable without any script."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

__all__ = ["arms_plot", "calibration_plot", "cost_plot", "interval_bar"]

_BAR = (132, 20)
_SQUARE = 240
_WIDE = (360, 230)


def interval_bar(estimate: Mapping[str, Any], *, least: float, most: float, mark: float, arm: int, title: str) -> str:
    """A value with its interval on a line from ``least`` to ``most``, and a tick at ``mark``, such as chance."""
    width, height = _BAR
    middle = height / 2

    def at(number: float) -> float:
        share = (min(most, max(least, number)) - least) / (most - least)
        return round(6 + share * (width - 12), 2)

    parts = [_line(at(least), middle, at(most), middle, "axis"), _line(at(mark), 2, at(mark), height - 2, "chance")]
    if estimate["low"] is not None and estimate["high"] is not None:
        low, high = at(estimate["low"]), at(estimate["high"])
        parts.append(_line(low, middle, high, middle, f"range a{arm}"))
        parts += [_line(x, middle - 4, x, middle + 4, f"range a{arm}") for x in (low, high)]
    if estimate["value"] is not None:
        hollow = "" if estimate["low"] is not None else " hollow"
        parts.append(f'<circle cx="{at(estimate["value"])}" cy="{middle}" r="4.5" class="dot a{arm}{hollow}"/>')
    return _svg(width, height, title, parts, "bar")


def calibration_plot(calibration: Mapping[str, Any], *, arm: int, title: str) -> str:
    """Stated against happened, one circle a tenth of the scale, its area by how many runs it has."""
    left, top, side = 44, 16, _SQUARE - 66
    bottom = top + side
    most = max((one["n"] for one in calibration["bins"]), default=1)
    parts = [f'<rect x="{left}" y="{top}" width="{side}" height="{side}" class="frame"/>']
    for tick in (0.0, 0.25, 0.5, 0.75, 1.0):
        x, y = left + tick * side, bottom - tick * side
        parts += [_line(left, y, left + side, y, "grid"), _line(x, top, x, bottom, "grid")]
        if tick in (0.0, 0.5, 1.0):
            parts += [_text(x, bottom + 15, f"{tick:g}", "middle"), _text(left - 6, y + 4, f"{tick:g}", "end")]
    parts.append(_line(left, bottom, left + side, top, "ideal"))
    parts.append(_text(left + side / 2, bottom + 32, "stated", "middle"))
    parts.append(f'<text transform="translate(11 {top + side / 2}) rotate(-90)" text-anchor="middle">came true</text>')
    for one in calibration["bins"]:
        x, y = left + one["stated"] * side, bottom - one["happened"] * side
        said = f"{one['n']}: stated {one['stated']:.2f}, came true {one['happened']:.2f}"
        radius = 4 + 10 * math.sqrt(one["n"] / most)
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}" class="bubble a{arm}"><title>{said}</title></circle>'
        )
        parts.append(_text(x, y + 4, str(one["n"]), "middle", "count"))
    return _svg(_SQUARE, _SQUARE, title, parts, "square")


def cost_plot(curves: Sequence[Mapping[str, Any]], *, title: str) -> str:
    """Share right against cost, one step line an arm, in the order of the arms."""
    axes = _CostAxes([amount for curve in curves for amount, _ in curve["points"]])
    parts = axes.parts()
    for index, curve in enumerate(curves):
        steps, level = [f"M{axes.left} {axes.up(0)}"], 0.0
        for amount, share in curve["points"]:
            steps += [f"L{axes.at(amount)} {axes.up(level)}", f"L{axes.at(amount)} {axes.up(share)}"]
            level = share
        steps.append(f"L{axes.right} {axes.up(level)}")
        parts.append(f'<path d="{"".join(steps)}" class="curve a{index % 8}"/>')
        for amount, share in curve["points"][-1:]:
            parts.append(f'<circle cx="{axes.at(amount)}" cy="{axes.up(share)}" r="2.6" class="dot a{index % 8}"/>')
    return _svg(*_WIDE, title, parts, "wide")


def arms_plot(points: Sequence[Mapping[str, Any]], joined: Sequence[Sequence[str]], *, title: str) -> str:
    """Each arm's score, with its interval, against its mean cost; arms that differ in their budget alone are joined.

    Args:
        points: for each arm ``arm``, its ``place`` among the arms, ``cost``, ``value``, ``low`` and ``high``.
        joined: names of arms, in the order of the line through them.
        title: what it shows, in words.
    """
    axes = _CostAxes([point["cost"] for point in points])
    parts = axes.parts()
    places = {point["arm"]: (axes.at(point["cost"]), axes.up(point["value"])) for point in points}
    for names in joined:
        line = [f"{places[name][0]} {places[name][1]}" for name in names if name in places]
        parts += [f'<path d="M{" L".join(line)}" class="joined"/>'] if len(line) > 1 else []
    for point in points:
        x, y = places[point["arm"]]
        if point["low"] is not None and point["high"] is not None:
            parts.append(_line(x, axes.up(point["low"]), x, axes.up(point["high"]), f"range a{point['place']}"))
        said = escape(f"{point['arm']}: {point['value']:.2f}")
        parts.append(f'<circle cx="{x}" cy="{y}" r="5" class="dot a{point["place"]}"><title>{said}</title></circle>')
    return _svg(*_WIDE, title, parts, "wide")


class _CostAxes:
    """A share from 0 to 1 against a cost, on a logarithmic scale with a place for 0 before it."""

    def __init__(self, amounts: Sequence[float]) -> None:
        width, height = _WIDE
        self.left, self.right, self.top, self.bottom = 34, width - 10, 10, height - 32
        self._zero = self.left + 14
        spent = [amount for amount in amounts if amount > 0] or [1.0, 10.0]
        self._ticks = _ticks(min(spent), max(spent))
        self._first = math.log(min(*spent, *self._ticks, math.inf))
        self._last = math.log(max(*spent, *self._ticks, 0.0))

    def at(self, amount: float) -> float:
        """Where an amount lies across."""
        if amount <= 0:
            return self._zero
        share = (math.log(amount) - self._first) / (self._last - self._first or 1.0)
        return round(self._zero + 26 + share * (self.right - self._zero - 34), 2)

    def up(self, share: float) -> float:
        """Where a share lies from the top."""
        return round(self.bottom - share * (self.bottom - self.top), 2)

    def parts(self) -> list[str]:
        """The lines of the grid and what is written beside them."""
        parts = [_text(self._zero, self.bottom + 14, "0", "middle")]
        parts.append(_line(self.left, self.bottom, self.right, self.bottom, "axis"))
        for share in (0.0, 0.25, 0.5, 0.75, 1.0):
            parts.append(_line(self.left, self.up(share), self.right, self.up(share), "grid"))
            parts.append(_text(self.left - 5, self.up(share) + 4, f"{share:g}", "end"))
        for tick in self._ticks:
            parts.append(_line(self.at(tick), self.top, self.at(tick), self.bottom, "grid"))
            parts.append(_text(self.at(tick), self.bottom + 14, _short(tick), "middle"))
        return parts


def _ticks(low: float, high: float) -> list[float]:
    """One, two and five times powers of ten that lie around the range, at most six of them."""
    powers = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    for steps in ((1, 2, 5), (1, 3), (1,)):
        found = [
            step * 10.0**power for power in powers for step in steps if low / 2.5 <= step * 10.0**power <= high * 2.5
        ]
        if 2 <= len(found) <= 6:
            return found
    every = -(-len(found) // 6) if found else 1
    return found[::every] or [low, high]


def _short(number: float) -> str:
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:g}{letter}"
    return f"{number:g}"


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}" class="{kind}"/>'


def _text(x: float, y: float, text: str, anchor: str, kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{named}>{escape(text)}</text>'


def _svg(width: float, height: float, title: str, parts: Sequence[str], kind: str) -> str:
    said = escape(title, quote=True)
    return (
        f'<svg class="{kind}" viewBox="0 0 {width:g} {height:g}" width="{width:g}" height="{height:g}" role="img" '
        f'aria-label="{said}">{"".join(parts)}</svg>'
    )
