"""What ``attribute`` shows: lines, checks and plots."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from marple.tools.attribution.estimates import Estimate
from marple.tools.attribution.gradients import Metric
from marple.tools.contract import Artifact
from marple.tools.engine.sites import Site
from marple.tools.lenses import token_text
from marple.tools.plots import ACCENT, CONTROL, TARGET, figure, plot_artifact, visible
from marple.tools.target.target import Target

__all__ = ["agreement", "cell_line", "grid_plot", "token_line", "token_plot", "trusted", "unit", "warnings"]

_TRUSTED = 0.8


def unit(target: Target, metric: Metric) -> str:
    """What the numbers are."""
    answer = target.quote(target.tokenizer.decode(list(metric.answer)))
    if metric.other is None:
        return f"log-probability of {answer} (nats)"
    return f"logit of {answer} minus logit of {target.quote(token_text(target, metric.other))}"


def agreement(found: Estimate) -> dict[str, Any]:
    """How far the estimates can be trusted, for a result's controls."""
    beyond = int((found.effect.abs() > found.control).sum())
    return {
        "agreement_with_replacement": found.agreement,
        "cells_checked": len(found.checked),
        "cells_beyond_random_directions": beyond,
        "cells": found.effect.numel(),
    }


def trusted(found: Estimate) -> bool:
    """Whether the estimates are good enough to order cells by; where nothing can be compared they have to do."""
    return found.agreement is None or found.agreement >= _TRUSTED


def warnings(found: Estimate, error: float | None) -> Iterator[str]:
    """The same for people, and what to do about it."""
    correlation, checked = found.agreement, f"real replacements of {len(found.checked)} cells"
    if correlation is None:
        yield f"estimates and {checked} cannot be correlated: too few cells, or no differences among them"
    elif trusted(found):
        yield f"estimates and {checked} correlate {correlation:.2f}"
    else:
        yield (
            f"do not trust the estimates here: they and {checked} correlate {correlation:.2f} only. Below stand those "
            "really replaced, in the order of what was measured"
        )
    if error is not None and error > 0.05:
        yield "the shares do not add up: use more steps"


def token_line(target: Target, row: dict[str, Any]) -> str:
    """One token's share."""
    line = f"  position {row['position']} {target.quote(row['token'], limit=24)}: {row['attribution']:+.3f}"
    line += f" (random {row['random_control']:.3f}" + _within(row["attribution"], row["random_control"])
    return line if row["measured"] is None else f"{line}, measured {row['measured']:+.3f}"


def cell_line(target: Target, cell: dict[str, Any]) -> str:
    """One cell's estimate."""
    return (
        f"  {cell['site']}, position {cell['position']} ({target.quote(cell['token'])}): {cell['estimate']:+.3f} "
        f"(random {cell['random_control']:.3f}{_within(cell['estimate'], cell['random_control'])}, measured "
        f"{cell['measured']:+.3f}"
    )


def _within(value: float, control: float) -> str:
    return ")" if abs(value) > control else ", not beyond it)"


def token_plot(tokens: Sequence[dict[str, Any]], unit: str) -> Artifact:
    """A bar for each token, the control as a band, the measured effects as marks."""
    shown = tokens[-60:]
    places = range(len(shown))
    with figure(max(5.0, 1.5 + 0.32 * len(shown)), 3.6) as (made, (axes,)):
        axes.bar(places, [row["attribution"] for row in shown], color=TARGET, label="integrated gradients")
        control = [row["random_control"] for row in shown]
        axes.fill_between(
            places, [-one for one in control], control, step="mid", color=CONTROL, alpha=0.4, label="random"
        )
        checked = [(at, row["measured"]) for at, row in enumerate(shown) if row["measured"] is not None]
        axes.plot(*zip(*checked, strict=True), "D", color=ACCENT, markersize=4, label="measured alone")
        axes.axhline(0, color="#444444", linewidth=0.8)
        axes.set_xticks(places, [visible(row["token"]) for row in shown], rotation=60, ha="right")
        axes.set(ylabel="share", title=f"What the answer is due to: {visible(unit, limit=70)}")
        axes.grid(axis="x", visible=False)
        axes.legend(loc="best")
        return plot_artifact("attribution", made)


def grid_plot(found: Estimate, sites: Sequence[Site], names: Sequence[str]) -> Artifact:
    """The estimates as a heat map, and estimates against measurements."""
    with figure(max(8.5, 5.0 + 0.42 * len(names)), 2.4 + 0.2 * len(sites), columns=2) as (made, (left, right)):
        size = max(1e-9, float(found.effect.abs().max()))
        image = left.imshow(found.effect.numpy(), aspect="auto", origin="lower", cmap="RdBu", vmin=-size, vmax=size)
        for row, column in (found.effect.abs() > found.control).nonzero().tolist():
            left.plot(column, row, ".", color="black", markersize=3)
        left.set_xticks(range(len(names)), [visible(name, limit=20) for name in names], rotation=60, ha="right")
        left.set_yticks(range(len(sites)), [str(site.layer) for site in sites])
        left.set(ylabel=f"layer ({sites[0].name})", title="Attribution patching (dots: beyond random)")
        left.grid(visible=False)
        made.colorbar(image, label="estimated effect")
        estimates = [float(found.effect[row, column]) for row, column, _ in found.checked]
        measured = [value for _, _, value in found.checked]
        ends = [min(*estimates, *measured), max(*estimates, *measured)]
        right.plot(ends, ends, "--", color=CONTROL, label="equal")
        right.plot(measured, estimates, "o", color=TARGET, markersize=4)
        right.set(xlabel="measured by patching", ylabel="estimated", title="Checked cells")
        right.legend(loc="best")
        return plot_artifact("attribution", made)
