"""What ``diff_activations`` shows: text, data and plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from marple.tools.contract import Artifact
from marple.tools.differences import EVERYTHING
from marple.tools.diffing.consistency import LayerDifference, describe_layers, half_differences
from marple.tools.diffing.excess import ExcessRow, ExcessTest
from marple.tools.diffing.reading import Reading
from marple.tools.diffing.steering import SteeredReference
from marple.tools.lenses import lens_of_directions, ranks, show_tokens, token_text, top_tokens
from marple.tools.plots import ACCENT, CONTROL, TARGET, figure, plot_artifact, visible
from marple.tools.target.target import Target
from marple.tools.target.text import READ_ON

__all__ = [
    "KEPT_ROWS",
    "LensLayer",
    "excess_data",
    "excess_lines",
    "layer_lines",
    "plot",
    "prompt_lines",
    "read_layers",
    "steering_lines",
]

KEPT_ROWS = 200
_SHOWN_FOUND = 14
_SHOWN_PROMPTS = 6
_LENS_TOKENS = 12


@dataclass(frozen=True)
class LensLayer:
    """One layer's mean difference and what the lens reads in it; scores in standard deviations over the vocabulary."""

    difference: LayerDifference
    tokens: list[dict[str, Any]]
    """Tokens that the difference moves up most."""
    control_score: float | None
    """Control: the top score that the lens gives differences between halves of the reference's own prompts."""
    words: dict[str, int]
    """Rank of each given word."""

    def to_dict(self, handle: str) -> dict[str, Any]:
        """As data."""
        read = {"lens_tokens": self.tokens, "lens_control_score": self.control_score, "word_ranks": self.words}
        return {**asdict(self.difference), **read, "handle": handle}


def read_layers(target: Target, reading: Reading, words: Mapping[str, Sequence[int]]) -> list[LensLayer]:
    """The differences of a reading through the target's lens."""
    scores = lens_of_directions(target, reading.mean_difference)
    halves = half_differences(reading)
    found = []
    for at, difference in enumerate(describe_layers(reading)):
        control = None
        if halves:
            control = float(
                lens_of_directions(target, torch.stack([half[at] for half in halves])).max(-1).values.mean()
            )
        placed = {word: int(ranks(scores[at], tokens)) for word, tokens in words.items()}
        found.append(LensLayer(difference, top_tokens(target, scores[at], _LENS_TOKENS), control, placed))
    return found


def layer_lines(target: Target, layers: Sequence[LensLayer], handles: Sequence[str]) -> Iterator[str]:
    """A line for each layer."""
    yield "mean activation difference by layer (length relative to the activations; through the lens, top tokens):"
    for layer, handle in zip(layers, handles, strict=True):
        one = layer.difference
        if one.norm == 0:
            yield f"  layer {one.layer}: no difference; {handle}"
            continue
        line = f"  layer {one.layer}: {one.relative_norm:.3f}"
        if one.reference_halves_norm is not None and one.split_half_cosine is not None:
            line += f" (control {one.reference_halves_norm:.3f}), halves agree {one.split_half_cosine:.2f}"
        line += f"; {show_tokens(target, layer.tokens, 5)}, top score {layer.tokens[0]['score']:.1f}"
        line += "" if layer.control_score is None else f" (control {layer.control_score:.1f})"
        line += "".join(f"; {target.quote(word)} rank {rank}" for word, rank in layer.words.items())
        yield f"{line}; {handle}"


def excess_data(target: Target, test: ExcessTest) -> list[dict[str, Any]]:
    """Rows as data, the strongest first."""
    return [
        {**asdict(row), "found": row.found, "token": token_text(target, row.token), "id": row.token}
        for row in test.rows[:KEPT_ROWS]
    ]


def excess_lines(target: Target, tests: Mapping[str, ExcessTest], *, unit: str) -> Iterator[str]:
    """What the target wants to say more, or less, than the reference: over all prompts, and by condition."""
    if not tests:
        yield "fewer than 6 prompts: which tokens differ beyond chance was not tested"
    if "by_condition" in tests:
        test = tests["by_condition"]
        yield (
            f"tokens whose excess (p_target - p_reference, summed over {unit}) depends on the condition: "
            f"{len(test.found)} found (statistic >= {test.threshold:.2f} and q <= 0.05)"
        )
        shown = test.found[:_SHOWN_FOUND] or test.rows[:3]
        yield from (_row_line(target, row) for row in shown)
        yield from _left_out(len(test.found) - _SHOWN_FOUND)
    if "overall" in tests:
        test = tests["overall"]
        beyond = f"statistic >= {test.threshold:.2f}"
        yield f"tokens with an excess over all prompts: {len(test.found)} found ({beyond}); largest:"
        largest = sorted(test.found, key=lambda row: -abs(row.excess))
        yield from (_row_line(target, row) for row in largest[:8] or test.rows[:3])
        yield from _left_out(len(test.found) - 8)


def prompt_lines(target: Target, prompts: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """The tokens with the largest excess of single prompts, untested."""
    for one in prompts[:_SHOWN_PROMPTS]:
        excess = ", ".join(f"{target.quote(row['token'])} {row['excess']:+.3f}" for row in one["excess"])
        yield f"  {target.quote(one['prompt'], limit=60)}: excess of {excess}"


def _row_line(target: Target, row: ExcessRow) -> str:
    where = "over all" if row.condition == EVERYTHING else f"under {target.quote(row.condition)}"
    elsewhere = "" if row.elsewhere is None else f", elsewhere {row.elsewhere:+.3f}"
    mark = "" if row.found else " (within chance)"
    return (
        f"  {target.quote(token_text(target, row.token))} {where}: {row.excess:+.3f}{elsewhere}; statistic "
        f"{row.statistic:.1f}, q {row.q:.3g}{mark}"
    )


def _left_out(count: int) -> Iterator[str]:
    if count > 0:
        yield f"  ({count} more found: {READ_ON})"


def steering_lines(target: Target, steered: Sequence[SteeredReference]) -> Iterator[str]:
    """How much of the gap the difference closes in the reference."""
    for one in steered:
        verdict = "more than any" if one.outside_controls else "no more than the largest"
        controls = ", ".join(f"{value:.2f}" for value in one.controls)
        yield (
            f"reference + {one.scale:g} x difference at layer {one.layer} closes {one.closed:.2f} of the gap to the "
            f"target's replies, {verdict} of the random vectors ({controls}); "
            f"it says {target.quote(one.replies[0], limit=80)}"
            + ("; this scale breaks the model" if one.broken else "")
        )


def plot(
    layers: Sequence[LensLayer], bars: Sequence[tuple[str, float, bool]], *, unit: str, lens_layer: int
) -> Artifact:
    """Relative length by layer beside the strongest tokens.

    Args:
        layers: what was read.
        bars: label, excess, and whether it was found; empty draws the lens of ``lens_layer`` instead.
        unit: of the excess.
        lens_layer: index into ``layers``.
    """
    with figure(10.0, 4.0, columns=2) as (made, (left, right)):
        at = [layer.difference.layer for layer in layers]
        lengths = [layer.difference.relative_norm for layer in layers]
        left.plot(at, lengths, "o-", color=TARGET, label="target - reference")
        controls = [layer.difference.reference_halves_norm for layer in layers]
        control = [value for value in controls if value is not None]
        if len(control) == len(at):
            left.plot(at, control, "s--", color=CONTROL, label="control: halves of the reference's prompts")
        left.set(xlabel="layer (resid_post)", ylabel="length / length of the activations")
        left.set_ylim(0, 1.3 * max(*lengths, *control, 1e-6))
        left.set_xticks(at if len(at) <= 16 else at[:: len(at) // 12])
        left.set_title("Mean activation difference")
        left.legend(loc="upper center")
        title, axis = "What the target wants to say more (+) or less (-)", f"excess, {unit}"
        if not bars:
            lens = layers[lens_layer]
            bars = [(visible(token["token"]), float(token["score"]), True) for token in lens.tokens[:10]]
            title = f"Lens of the difference, layer {lens.difference.layer}"
            axis = "standard deviations over the vocabulary"
        names, values, found = zip(*reversed(bars), strict=True)
        right.barh(range(len(values)), values, color=[ACCENT if one else CONTROL for one in found])
        right.set_yticks(range(len(values)), names)
        right.axvline(0, color="#444444", linewidth=0.8)
        right.set(xlabel=axis, title=title)
        right.grid(axis="y", visible=False)
        return plot_artifact("activation_difference", made)
