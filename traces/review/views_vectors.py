"""How results of the tools with directions are shown: doses beside their controls, probes, projections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marple.traces.review.blocks import (
    Block,
    Cell,
    Chart,
    Heat,
    Note,
    Series,
    Table,
    Token,
    bar,
    differing,
    level,
    share,
)
from marple.traces.review.fields import mapping, number, rows, text

__all__ = ["VIEWS"]

_TOKENS = 600
_GOOD = ("causal", "claim")


def _steer(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    verdict = text(data.get("verdict"))
    yield Note(verdict or "no verdict", text(data.get("reason")), "good" if verdict in _GOOD else "unsure")
    start = mapping(data.get("unsteered"))
    doses = [row for row in [start, *rows(data.get("doses"))] if row]
    beside = {name: [row for row in [start, *rows(found)] if row] for name, found in controls.items() if rows(found)}
    series = [Series(name, _doses(found), "control") for name, found in beside.items()]
    yield Chart(
        "Outcome by dose",
        "dose, in activation norms",
        "outcome",
        [*series, Series("this direction", _doses(doses), "main")],
        note=f"grey: {len(series)} control directions at the same doses; bars are 95 % intervals",
    )
    yield _dose_table("Doses", doses)
    yield Table(
        "Largest change in each control",
        ("control", "outcome at its largest dose", "fluent", "example"),
        [
            (
                Cell(name),
                bar(found[-1].get("outcome")),
                _yes(found[-1].get("fluent")),
                _words(text(found[-1].get("example"))[:90]),
            )
            for name, found in beside.items()
        ],
        untrusted=True,
        control=True,
    )


def _doses(found: Sequence[Mapping[str, Any]]) -> list[tuple[float, float, float | None, float | None]]:
    return [
        (x, y, number(row.get("ci_low")), number(row.get("ci_high")))
        for row in found
        if (x := number(row.get("scale"))) is not None and (y := number(row.get("outcome"))) is not None
    ]


def _dose_table(title: str, found: Sequence[Mapping[str, Any]]) -> Table:
    return Table(
        title,
        ("dose", "outcome", "nats a token", "fluent", "example"),
        [
            (
                share(row.get("scale")),
                bar(row.get("outcome")),
                share(row.get("nll_per_token")),
                _yes(row.get("fluent")),
                _words(row.get("example")),
            )
            for row in found[:40]
        ],
        untrusted=True,
    )


def _yes(value: Any) -> Cell:
    return Cell("yes" if value is True else "no", "good" if value is True else "bad")


def _words(value: Any) -> Cell:
    return Cell(texts=differing([value], ()))


def _probe(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    verdict = text(data.get("verdict"))
    yield Note(verdict or "no verdict", text(data.get("reason")), "good" if verdict == "claim" else "unsure")
    points = []
    for at, row in enumerate(rows(data.get("layers"))):
        value = number(row.get("auroc"))
        if value is not None:
            points.append((float(at), value, number(row.get("ci_low")), number(row.get("ci_high"))))
    shuffled = mapping(controls.get("shuffled_labels"))
    median, top = number(shuffled.get("median")), number(shuffled.get("quantile_95"))
    baselines = mapping(controls.get("baselines"))
    yield Chart(
        "AUROC by layer",
        "layer",
        "AUROC",
        [Series("probe", points, "main")],
        band=None if median is None or top is None else (median, top, "shuffled labels, median to 95 %"),
        levels=[
            (value, f"{name} baseline")
            for name, one in baselines.items()
            if (value := number(mapping(one).get("auroc"))) is not None
        ],
    )
    yield Table(
        "Baselines",
        ("baseline", "AUROC", "probe is above it by", "95 %"),
        [
            (
                Cell(name),
                bar(one.get("auroc")),
                share(one.get("probe_advantage"), sign=True),
                Cell(f"{_plain(one.get('advantage_ci_low'))} to {_plain(one.get('advantage_ci_high'))}", "num"),
            )
            for name, one in ((name, mapping(one)) for name, one in baselines.items())
        ],
        control=True,
    )


def _project(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    tokens = rows(data.get("tokens"))
    largest = max((abs(number(one.get("z")) or 0.0) for one in tokens), default=0.0)
    yield Heat(
        "Projection by token",
        [
            Token(
                text(one.get("token")),
                level(one.get("z"), largest),
                f"z {_plain(one.get('z'))}, random {_plain(one.get('band_low'))} to {_plain(one.get('band_high'))}",
                one.get("outside") is True,
            )
            for one in tokens[:_TOKENS]
        ],
        note=f"largest |z| {_plain(data.get('largest_z'))}, p {_plain(data.get('p_value'))}; underlined: beyond random",
    )
    outside, chance = number(controls.get("tokens_outside")), number(controls.get("tokens_outside_by_chance"))
    if outside is not None and chance is not None:
        said = f"{outside:.0f} tokens outside, {chance:.1f} expected by chance"
        yield Note(f"{controls.get('random_directions')} random directions", said, control=True)


def _plain(value: Any) -> str:
    real = number(value)
    return "–" if real is None else f"{real:.2f}"


VIEWS = {"steer": _steer, "sae_steer": _steer, "probe": _probe, "project": _project}
