"""What ``diff_activations`` shows: text, data and plot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from marple.tools.contract import Artifact
from marple.tools.differences import EVERYTHING
from marple.tools.diffing.excess import ExcessRow, ExcessTest
from marple.tools.diffing.layers import LensLayer
from marple.tools.diffing.reading import Passage, Reading
from marple.tools.diffing.steering import SteeredReference
from marple.tools.lenses import token_text
from marple.tools.plots import ACCENT, CONTROL, TARGET, figure, plot_artifact, visible
from marple.tools.target.target import Completion, Target
from marple.tools.target.text import READ_ON

__all__ = [
    "divergence",
    "excess_data",
    "excess_lines",
    "plot",
    "prompt_data",
    "prompt_lines",
    "steering_lines",
    "word_data",
    "word_lines",
]

_KEPT_FOUND, _KEPT_OTHERS = 200, 50
_SHOWN_FOUND, _SHOWN_OVERALL = 10, 6
_SHOWN_PROMPTS = 6
_LEAST_EXCESS = 0.001


def word_data(
    known: Mapping[str, Sequence[int]], table: Any, columns: Sequence[int], labels: Sequence[str]
) -> list[dict[str, Any]]:
    """Excess of each given word, over all prompts and by condition, from the table ``(prompt, token)``."""
    place = {token: at for at, token in enumerate(columns)}
    found = []
    for word, tokens in known.items():
        mine = table[:, [place[token] for token in tokens if token in place]].sum(1)
        by = {name: float(mine[[label == name for label in labels]].mean()) for name in dict.fromkeys(labels)}
        found.append({"word": word, "excess": float(mine.mean()), "by_condition": by})
    return found


def divergence(reading: Reading, passages: Sequence[Passage], labels: Sequence[str]) -> dict[str, float]:
    """Mean divergence of each condition's passages, nats per position."""
    by: dict[str, list[float]] = {}
    for passage, row in zip(passages, reading.rows, strict=True):
        by.setdefault(labels[passage.prompt], []).append(row.kl)
    return {label: float(np.mean(values)) for label, values in by.items()}


def prompt_data(
    target: Target,
    asked: Sequence[tuple[str, str]],
    said: Sequence[Sequence[Completion]],
    table: Any,
    columns: Sequence[int],
) -> list[dict[str, Any]]:
    """Each prompt with its replies, the five tokens with its largest excess, and which replies were cut."""
    records = []
    for at, (label, prompt) in enumerate(asked):
        top = [(token_text(target, columns[one]), float(table[at, one])) for one in np.argsort(-np.abs(table[at]))[:5]]
        excess = [{"token": token, "excess": round(value, 4)} for token, value in top]
        replies = [reply.text for reply in said[at]]
        cut = [reply.finish == "length" for reply in said[at]]
        records.append({"condition": label, "prompt": prompt, "replies": replies, "excess": excess, "cut": cut})
    return records


def excess_data(target: Target, test: ExcessTest) -> tuple[list[dict[str, Any]], int]:
    """Rows as data, the strongest first, and the number of those left out.

    Kept are up to 200 that were found, and the 50 others whose excess is largest.
    """
    others = sorted((row for row in test.rows if not row.found), key=lambda row: -abs(row.effect))[:_KEPT_OTHERS]
    kept = {*test.found[:_KEPT_FOUND], *others}
    rows = [
        {**asdict(row), "found": row.found, "token": token_text(target, row.token), "id": row.token}
        for row in test.rows
        if row in kept
    ]
    return rows, len(test.rows) - len(rows)


def excess_lines(target: Target, tests: Mapping[str, ExcessTest], *, unit: str) -> Iterator[str]:
    """What the target wants to say more, or less, than the reference: over all prompts, and by condition."""
    if not tests:
        yield "fewer than 6 prompts: which tokens differ beyond chance was not tested"
    else:
        yield (
            f"excess: p_target - p_reference, summed over {unit}; z: how many standard errors it is from 0, by "
            "condition from the mean of all prompts (0.05 added to the standard deviation, so that tiny ones come last)"
        )
    if "by_condition" in tests:
        test = tests["by_condition"]
        beyond = f"z of at least {test.threshold:.2f} in size and q <= 0.05"
        yield f"tokens whose excess depends on the condition: {len(test.found)} found ({beyond}); strongest:"
        shown = test.found[:_SHOWN_FOUND] or test.rows[:3]
        yield from (_row_line(target, row) for row in shown)
        yield from _left_out(len(test.found) - _SHOWN_FOUND)
    if "overall" in tests:
        test = tests["overall"]
        beyond = f"z of at least {test.threshold:.2f} in size and q <= 0.05"
        yield f"tokens with an excess over all prompts: {len(test.found)} found ({beyond}); largest:"
        largest = sorted(test.found, key=lambda row: -abs(row.excess))
        yield from (_row_line(target, row) for row in largest[:_SHOWN_OVERALL] or test.rows[:3])
        yield from _left_out(len(test.found) - _SHOWN_OVERALL)


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
        f"  {target.quote(token_text(target, row.token))} {where}: {row.excess:+.3f}{elsewhere}; z "
        f"{row.statistic:.1f}, q {row.q:.2g}{mark}"
    )


def _left_out(count: int) -> Iterator[str]:
    if count > 0:
        yield f"  ({count} more found: {READ_ON})"


def word_lines(target: Target, words: Sequence[Mapping[str, Any]], layers: Sequence[LensLayer]) -> Iterator[str]:
    """For each word its excess and its best layer in the lens, the largest excess first; words without one together."""

    def lens(word: str) -> str:
        best = min(layers, key=lambda layer: layer.words[word])
        return f"{best.words[word]} (layer {best.difference.layer})"

    largest = {one["word"]: max(one["by_condition"].items(), key=lambda item: abs(item[1])) for one in words}
    order = sorted(words, key=lambda one: -abs(largest[one["word"]][1]))
    small = [one["word"] for one in order if abs(largest[one["word"]][1]) < _LEAST_EXCESS]
    for one in order[: len(order) - len(small)]:
        condition, value = largest[one["word"]]
        where = f", largest under {target.quote(condition)} {value:+.3f}" if len(one["by_condition"]) > 1 else ""
        yield f"{target.quote(one['word'])}: excess {one['excess']:+.3f}{where}; best lens rank {lens(one['word'])}"
    if small:
        listed = ", ".join(f"{target.quote(word)} {lens(word)}" for word in small)
        yield f"excess below {_LEAST_EXCESS} everywhere, best lens rank: {listed}"


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
