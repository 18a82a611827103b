"""How results of the tools on mechanisms are shown: sweeps over layers, heat maps of layers and positions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from marple.traces.review.blocks import (
    Block,
    Cell,
    Chart,
    Grid,
    Heat,
    Note,
    Series,
    Table,
    Token,
    bar,
    level,
    share,
)
from marple.traces.review.fields import items, mapping, number, rows, text, whole

__all__ = ["VIEWS"]

_TOKENS = 600


def _lens(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    for one in rows(data.get("words"))[:4]:
        yield _lens_chart(one)
    cells = rows(data.get("cells"))
    last = max((whole(cell.get("position")) for cell in cells), default=0)
    yield Table(
        f"What each layer would say at position {last}",
        ("layer", "target", "reference", "entropy"),
        [
            (
                Cell(str(cell.get("layer")), "num"),
                Cell(_top(cell.get("tokens"))),
                Cell(_top(cell.get("reference_tokens"))),
                share(cell.get("entropy")),
            )
            for cell in cells
            if whole(cell.get("position")) == last
        ][:120],
    )


def _lens_chart(one: Mapping[str, Any]) -> Chart:
    def last(rows_of: Any) -> list[tuple[float, float, float | None, float | None]]:
        values = [(at, items(row)) for at, row in enumerate(items(rows_of))]
        return [(float(at), y, None, None) for at, row in values if row and (y := number(row[-1])) is not None]

    drawn = [
        Series("target", last(one.get("logprobs")), "main"),
        Series("reference", last(one.get("reference_logprobs")), "second"),
    ]
    others = [items(row) for row in items(one.get("unrelated_logprobs"))]
    for at in range(max((len(row) for row in others), default=0)):
        points = [
            (float(n), y, None, None)
            for n, row in enumerate(others)
            if at < len(row) and (y := number(row[at])) is not None
        ]
        drawn.insert(0, Series(f"unrelated prompt {at + 1}", points, "control"))
    return Chart(
        f"“{text(one.get('word'))}” by layer",
        "layer",
        "log-probability",
        drawn,
        note="grey: the same word on unrelated prompts",
    )


def _top(value: Any) -> str:
    return "  ".join(f"{text(one.get('token'))} {number(one.get('probability')) or 0:.2f}" for one in rows(value)[:4])


def _patch(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    names = [f"{text(one.get('token'))}" for one in rows(data.get("positions"))]
    layers = [str(layer) for layer in items(data.get("layers"))]
    for direction in ("denoising", "noising"):
        found = mapping(data.get(direction))
        if found:
            grid = _cells(layers, names, items(found.get("metric")), 1.0, items(found.get("beyond_controls")))
            yield Grid(
                f"{direction.capitalize()}: 0 corrupted, 1 clean", names, grid, note="framed: beyond the controls"
            )
    for direction in ("denoising", "noising"):
        found = mapping(data.get(direction))
        for name in ("noise", "unrelated") if found else ():
            grid = _cells(layers, names, items(found.get(name)), 1.0, ())
            yield Grid(f"{direction}, control: {name}", names, grid, control=True)


def _cells(
    layers: Sequence[str], names: Sequence[str], values: Sequence[Any], largest: float, framed: Sequence[Any]
) -> list[tuple[str, list[Token]]]:
    grid = []
    for at, row in enumerate(values[:120]):
        marks = items(framed[at]) if at < len(framed) else ()
        tokens = [
            Token(
                "",
                level(value, largest),
                f"layer {layers[at] if at < len(layers) else at}, {names[n] if n < len(names) else n}: {_plain(value)}",
                n < len(marks) and marks[n] is True,
            )
            for n, value in enumerate(items(row)[:200])
        ]
        grid.append((layers[at] if at < len(layers) else str(at), tokens))
    return grid


def _attribute(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    tokens = rows(data.get("tokens"))
    if tokens:
        for name in ("attribution", "measured", "random_control"):
            largest = max((abs(number(one.get("attribution")) or 0.0) for one in tokens), default=0.0)
            shown = [
                Token(text(one.get("token")), level(one.get(name), largest), f"{_plain(one.get(name))} logits")
                for one in tokens
            ]
            yield Heat(name.replace("_", " ").capitalize(), shown[:_TOKENS], control=name == "random_control")
    else:
        names = [text(one.get("token")) for one in rows(data.get("positions"))]
        layers = [str(layer) for layer in items(data.get("layers"))]
        values = items(data.get("estimate"))
        largest = max((abs(number(v) or 0.0) for row in values for v in items(row)), default=0.0)
        for name in ("estimate", "random_control"):
            grid = _cells(layers, names, items(data.get(name)), largest, ())
            yield Grid(name.replace("_", " ").capitalize(), names, grid, control=name == "random_control")
    agreed = number(controls.get("agreement_with_replacement"))
    if agreed is not None:
        yield Note("Really replaced", f"estimate and replacement correlate {agreed:.2f}", control=True)


def _activations(data: Mapping[str, Any], controls: Mapping[str, Any]) -> Iterator[Block]:
    for name in ("overall", "by_condition"):
        found = sorted(
            rows(mapping(data.get("excess")).get(name)), key=lambda row: -abs(number(row.get("statistic")) or 0.0)
        )
        if found:
            yield Table(
                f"Excess of next tokens, {name.replace('_', ' ')}",
                ("token", "condition", "excess", "elsewhere", "z", "q"),
                [
                    (
                        Cell(text(row.get("token")), "strong" if row.get("found") is True else ""),
                        Cell(text(row.get("condition"))),
                        share(row.get("excess"), 3, True),
                        share(row.get("elsewhere"), 3, True),
                        share(row.get("statistic"), sign=True),
                        share(row.get("q"), 3),
                    )
                    for row in found[:12]
                ],
                note="bold: found, beyond shuffled signs",
            )
    layers = rows(data.get("layers"))
    yield Table(
        "Mean activation difference by layer",
        ("layer", "norm", "halves agree", "its lens says"),
        [
            (
                Cell(str(row.get("layer")), "num"),
                bar(row.get("norm"), max((number(one.get("norm")) or 0.0 for one in layers), default=0.0)),
                share(row.get("split_half_cosine")),
                Cell(" ".join(text(one.get("token")) for one in rows(row.get("lens_tokens"))[:8])),
            )
            for row in layers[:120]
        ],
    )
    tests = {name: mapping(controls.get(name)) for name in ("overall", "by_condition")}
    yield Table(
        "Beside what shuffled signs find",
        ("comparison", "tested", "found", "largest z", "threshold"),
        [
            (
                Cell(name.replace("_", " ")),
                Cell(str(one.get("tested")), "num"),
                Cell(str(one.get("found")), "num"),
                share(one.get("largest_statistic")),
                share(one.get("shuffled_threshold")),
            )
            for name, one in tests.items()
            if one
        ],
        control=True,
    )
    halves = [Cell(_plain(value), "num") for value in items(controls.get("reference_halves"))]
    if halves:
        columns = [f"layer {at}" for at in range(len(halves))]
        yield Table("Norm between halves of the reference's own prompts", columns, [halves], control=True)


def _plain(value: Any) -> str:
    real = number(value)
    return "–" if real is None else f"{real:.2f}"


VIEWS = {
    "logit_lens": _lens,
    "patch": _patch,
    "attribute": _attribute,
    "diff_activations": _activations,
}
