"""How results of tools on activations are shown: doses beside their controls, sweeps over layers, heat maps."""

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
    differing,
    level,
    share,
)
from marple.traces.review.fields import items, mapping, number, rows, text, whole

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
    halves = [Cell(_plain(value), "num") for value in items(controls.get("reference_halves"))]
    if halves:
        columns = [f"layer {at}" for at in range(len(halves))]
        yield Table("Norm between halves of the reference's own prompts", columns, [halves], control=True)


def _plain(value: Any) -> str:
    real = number(value)
    return "–" if real is None else f"{real:.2f}"


VIEWS = {
    "steer": _steer,
    "sae_steer": _steer,
    "probe": _probe,
    "project": _project,
    "logit_lens": _lens,
    "patch": _patch,
    "attribute": _attribute,
    "diff_activations": _activations,
}
