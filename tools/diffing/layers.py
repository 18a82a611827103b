"""The mean activation difference layer by layer: its length, its handle, and as a hint what the lens reads in it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from marple.tools.diffing.consistency import LayerDifference, describe_layers, half_differences
from marple.tools.diffing.reading import Reading
from marple.tools.lenses import lens_of_directions, ranks, show_tokens, top_tokens
from marple.tools.target.target import Target
from marple.tools.target.text import READ_ON

__all__ = ["LensLayer", "layer_lines", "lens_lines", "read_layers"]

_SHOWN_LAYERS, _SHOWN_LENSES = 12, 4
_LENS_TOKENS = 12


@dataclass(frozen=True)
class LensLayer:
    """One layer's mean difference and what the lens reads in it; scores in standard deviations over the vocabulary."""

    difference: LayerDifference
    tokens: list[dict[str, Any]]
    """Tokens that the difference moves up most."""
    control_score: float | None
    """Control: the top score that the lens gives differences between halves of the reference's own prompts, on average
    over the splits."""
    control_share: float | None
    """Share of these splits whose top score is at least that of the difference."""
    words: dict[str, int]
    """Rank of each given word."""

    def to_dict(self, handle: str) -> dict[str, Any]:
        """As data."""
        return {
            **asdict(self.difference),
            "lens_tokens": self.tokens,
            "lens_control_score": self.control_score,
            "lens_control_share": self.control_share,
            "word_ranks": self.words,
            "handle": handle,
        }


def read_layers(target: Target, reading: Reading, words: Mapping[str, Sequence[int]]) -> list[LensLayer]:
    """The differences of a reading through the target's lens."""
    scores = lens_of_directions(target, reading.mean_difference)
    halves = half_differences(reading)
    found = []
    for at, difference in enumerate(describe_layers(reading)):
        control = share = None
        if halves:
            tops = lens_of_directions(target, torch.stack([half[at] for half in halves])).max(-1).values
            control, share = float(tops.mean()), float((tops >= scores[at].max()).float().mean())
        placed = {word: int(ranks(scores[at], tokens)) for word, tokens in words.items()}
        found.append(LensLayer(difference, top_tokens(target, scores[at], _LENS_TOKENS), control, share, placed))
    return found


def layer_lines(target: Target, layers: Sequence[LensLayer], handles: Sequence[str]) -> Iterator[str]:
    """How large the difference is, and its handle, for up to twelve layers."""
    yield "mean activation difference by layer (length relative to the activations) and its handle:"
    shown = _spread(len(layers), _SHOWN_LAYERS)
    for layer, handle in [(layers[at], handles[at]) for at in shown]:
        one = layer.difference
        if one.norm == 0:
            yield f"  layer {one.layer}: no difference; {handle}"
            continue
        line = f"  layer {one.layer}: {one.relative_norm:.3f}"
        if one.reference_halves_norm is not None and one.split_half_cosine is not None:
            line += f" (control {one.reference_halves_norm:.3f}), halves agree {one.split_half_cosine:.2f}"
        yield f"{line}; {handle}"
    if len(shown) < len(layers):
        yield f"  ({len(layers) - len(shown)} layers between them: {READ_ON})"


def lens_lines(target: Target, layers: Sequence[LensLayer]) -> Iterator[str]:
    """What the lens reads in up to four layers' differences: a hint only."""
    differing = [layer for layer in layers if layer.difference.norm > 0]
    if not differing:
        return
    yield (
        "only a hint, to be confirmed by excess or replies: tokens that the lens reads in these differences (control: "
        "differences between halves of the reference's own prompts). Any fine-tuning brings up names; in seven shipped "
        "organisms the scores were no higher with a hidden subject than without:"
    )
    for layer in [differing[at] for at in _spread(len(differing), _SHOWN_LENSES)]:
        line = f"  layer {layer.difference.layer}: {show_tokens(target, layer.tokens, 5)}"
        line += f", top score {layer.tokens[0]['score']:.1f}"
        if layer.control_share is not None:
            line += f" (as high in {layer.control_share:.0%} of the controls)"
        yield line


def _spread(count: int, most: int) -> list[int]:
    """Up to ``most`` of so many places, evenly, with the first and the last."""
    return sorted({round(at * (count - 1) / max(1, min(count, most) - 1)) for at in range(min(count, most))})
