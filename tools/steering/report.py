"""A dose-response as text, as data and as a plot."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from marple.tools.contract import Artifact
from marple.tools.plots import ACCENT, CONTROL, REFERENCE, TARGET, figure, plot_artifact
from marple.tools.steering.doses import EFFECT, Dose, DoseResponse
from marple.tools.steering.outcomes import Continuations, Outcome, OwnWords, Projection, Words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["control_data", "describe", "dose_data", "dose_lines", "dose_plot"]


def describe(outcome: Outcome, quote: Callable[[str], str]) -> str:
    """What is measured, in words."""
    if isinstance(outcome, Words):
        return f"share of replies that contain {' or '.join(map(quote, outcome.words))}"
    if isinstance(outcome, OwnWords):
        return "share of replies that contain the words which each direction itself brings (chosen on other samples)"
    if isinstance(outcome, Continuations):
        less = f" minus that of {', '.join(map(quote, outcome.less))}" if outcome.less else ""
        return f"mean log-probability (nats) of {', '.join(map(quote, outcome.more))}{less}"
    assert isinstance(outcome, Projection)
    return f"projection of the last prompt token at {outcome.site}"


def dose_lines(found: DoseResponse, outcome: Outcome, *, quote: Callable[[str], str]) -> Iterator[str]:
    """The verdict, then outcome and fluency of the effect at each scale beside its controls."""
    verdict = found.verdict
    yield f"verdict: {verdict.label} ({verdict.reason})"
    yield f"measured: {describe(outcome, quote)}"
    yield f"steered at {found.site}; scale 1 adds a vector of length {found.unit:.3g}, to effect and controls alike"
    if verdict.scale is not None:
        bound = f", further controls within {verdict.control_bound:+.3f}" if verdict.control_bound is not None else ""
        yield (
            f"largest change at a fluent scale: {verdict.change:+.3f} [{verdict.low:+.3f}, {verdict.high:+.3f}] at "
            f"scale {verdict.scale:g}; largest of a control {verdict.control:+.3f}{bound}"
        )
    yield f"unsteered: {_cell(found.unsteered)}"
    for dose in found.of(EFFECT):
        others = [one for one in found.doses if one.direction != EFFECT and one.scale == dose.scale]
        yield f"scale {dose.scale:+g}: {_cell(dose)}; {_spread(others)}"
    for key, words in found.own_words.items():
        if key.startswith(EFFECT):
            yield f"words brought at {'positive' if key.endswith('+') else 'negative'} scales: {_listed(words, quote)}"
    for dose in (found.unsteered, *found.of(EFFECT)):
        yield f"reply at scale {dose.scale:+g}: {quote(dose.example)}"


def _cell(dose: Dose) -> str:
    text = f"{dose.outcome:.3f} [{dose.low:.3f}, {dose.high:.3f}], {dose.fluency.nll:.2f} nats per token"
    return f"{text}, NOT FLUENT ({dose.problem})" if dose.problem else text


def _spread(controls: Sequence[Dose]) -> str:
    fluent = [dose.outcome for dose in controls if dose.fluent]
    if not controls:
        return "no controls"
    broken = len(controls) - len(fluent)
    lost = f", {broken} of {len(controls)} not fluent" if broken else ""
    return f"controls {min(fluent):.3f} to {max(fluent):.3f}{lost}" if fluent else "no control is fluent"


def _listed(words: Sequence[str], quote: Callable[[str], str]) -> str:
    return ", ".join(map(quote, words)) or "none"


def dose_data(found: DoseResponse) -> dict[str, Any]:
    """The effect as JSON values: verdict, unit, unsteered and steered doses."""
    return {
        **found.verdict.to_dict(),
        "site": str(found.site),
        "unit": found.unit,
        "fluency_margin": found.margin,
        "unsteered": found.unsteered.to_dict(),
        "doses": [dose.to_dict() for dose in found.of(EFFECT)],
        "own_words": {key: list(words) for key, words in found.own_words.items()},
    }


def control_data(found: DoseResponse) -> dict[str, Any]:
    """Each control's doses as JSON values."""
    return {name: [dose.to_dict() for dose in found.of(name)] for name in found.directions if name != EFFECT}


def dose_plot(found: DoseResponse, outcome: Outcome, *, name: str, effect: str, label: str = "") -> Artifact:
    """Outcome (left) and fluency (right) over scale: the effect with its interval, every control, and the unsteered.

    Args:
        found: the experiment.
        outcome: what was measured.
        name: of the artifact.
        effect: what the effect is called in the legend.
        label: of the outcome's axis; by default a short one.
    """
    with figure(9.0, 3.8, columns=2) as (made, (left, right)):
        for at, control in enumerate(found.directions[1:]):
            _draw(left, found, control, CONTROL, "controls" if at == 0 else "", lambda dose: dose.outcome)
            _draw(right, found, control, CONTROL, "", lambda dose: dose.fluency.nll)
        series = [found.unsteered, *found.of(EFFECT)] if not found.own_words else found.of(EFFECT)
        series = sorted(series, key=lambda dose: dose.scale)
        left.fill_between(
            [dose.scale for dose in series],
            [dose.low for dose in series],
            [dose.high for dose in series],
            color=TARGET,
            alpha=0.15,
            linewidth=0,
        )
        _draw(left, found, EFFECT, TARGET, effect, lambda dose: dose.outcome)
        _draw(right, found, EFFECT, TARGET, effect, lambda dose: dose.fluency.nll)
        left.axhline(found.unsteered.outcome, color=REFERENCE, linestyle=":", label="unsteered")
        limit = found.unsteered.fluency.nll + found.margin
        right.axhline(limit, color=ACCENT, linestyle="--", linewidth=1, label="fluency limit")
        left.plot([], [], "x", color="black", label="not fluent: no evidence")
        left.set(
            xlabel=f"scale (1 = length {found.unit:.3g})", ylabel=label or _axis(outcome), title=found.verdict.label
        )
        right.set(xlabel="scale", ylabel="nats per token, unsteered model", title=f"fluency at {found.site}")
        for axes in (left, right):
            axes.legend(loc="best")
        return plot_artifact(name, made)


def _axis(outcome: Outcome) -> str:
    if isinstance(outcome, Words):
        return "share of replies with the words"
    if isinstance(outcome, OwnWords):
        return "share of replies with own words"
    return "log-probability (nats)" if isinstance(outcome, Continuations) else "projection"


def _draw(
    axes: Axes, found: DoseResponse, direction: str, color: str, label: str, value: Callable[[Dose], float]
) -> None:
    own = direction == EFFECT
    series = found.of(direction)
    if not found.own_words:
        series = sorted([*series, found.unsteered], key=lambda dose: dose.scale)
    scales, values = [dose.scale for dose in series], [value(dose) for dose in series]
    axes.plot(scales, values, color=color, linewidth=1.8 if own else 0.9, zorder=3 if own else 2, label=label or None)
    for fluent, marker in ((True, "o"), (False, "x")):
        points = [
            (scale, one) for dose, scale, one in zip(series, scales, values, strict=True) if dose.fluent == fluent
        ]
        if points:
            axes.plot(
                *zip(*points, strict=True), marker, color=color, markersize=4.5 if own else 3, zorder=4 if own else 2
            )
