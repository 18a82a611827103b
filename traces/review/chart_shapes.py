"""Places of a chart's lines, so that a template only has to write them down."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from marple.traces.review.blocks import Chart, Series

__all__ = ["Drawn", "Shape", "shape"]

WIDE, HIGH = 520.0, 240.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 52.0, 14.0, 12.0, 40.0


@dataclass(frozen=True)
class Drawn:
    """One series: its path, its points and their whiskers."""

    name: str
    tone: str
    path: str
    dots: Sequence[tuple[float, float, str]]
    whiskers: Sequence[tuple[float, float, float]]


@dataclass(frozen=True)
class Shape:
    """A chart with places in pixels."""

    series: Sequence[Drawn]
    x_ticks: Sequence[tuple[float, str]]
    y_ticks: Sequence[tuple[float, str]]
    band: tuple[float, float, str] | None
    """Top, height and name."""
    levels: Sequence[tuple[float, str]]
    wide: float = WIDE
    high: float = HIGH
    left: float = _LEFT
    right: float = WIDE - _RIGHT
    bottom: float = HIGH - _BOTTOM


def shape(chart: Chart) -> Shape | None:
    """The chart's places; None where it has no point."""
    points = [point for series in chart.series for point in series.points]
    if not points:
        return None
    xs = [point[0] for point in points]
    ys = [value for point in points for value in point[1:] if value is not None]
    ys += [value for value, _ in chart.levels] + (list(chart.band[:2]) if chart.band else [])
    x_low, x_high = _range(min(xs), max(xs))
    y_low, y_high = _range(min(ys), max(ys))

    def x(value: float) -> float:
        return round(_LEFT + (WIDE - _LEFT - _RIGHT) * (value - x_low) / (x_high - x_low), 1)

    def y(value: float) -> float:
        return round(_TOP + (HIGH - _TOP - _BOTTOM) * (y_high - value) / (y_high - y_low), 1)

    def drawn(series: Series) -> Drawn:
        ordered = sorted(series.points)
        path = "".join(f"{'L' if n else 'M'}{x(at)} {y(value)}" for n, (at, value, _, _) in enumerate(ordered))
        dots = [(x(at), y(value), f"{series.name}: {value:.3g} at {at:g}") for at, value, _, _ in ordered]
        main = series.tone == "main"
        whiskers = [
            (x(at), y(low), y(high)) for at, _, low, high in ordered if main and low is not None and high is not None
        ]
        return Drawn(series.name, series.tone, path, dots, whiskers)

    return Shape(
        series=[drawn(series) for series in chart.series if series.points],
        x_ticks=[(x(value), f"{value:g}") for value in _ticks(x_low, x_high)],
        y_ticks=[(y(value), f"{value:g}") for value in _ticks(y_low, y_high)],
        band=(y(chart.band[1]), max(1.0, y(chart.band[0]) - y(chart.band[1])), chart.band[2]) if chart.band else None,
        levels=[(y(value), name) for value, name in chart.levels],
    )


def _range(low: float, high: float) -> tuple[float, float]:
    if high - low < 1e-9:
        low, high = low - 0.5, high + 0.5
    return low, high


def _ticks(low: float, high: float) -> Iterator[float]:
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = power * next(factor for factor in (1, 2, 5, 10) if factor * power >= rough)
    for n in range(math.ceil(low / step), math.floor(high / step) + 1):
        yield round(n * step, 10)
