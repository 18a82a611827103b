"""Plots of features: over the tokens of a text, and between two sets of prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marple.tools.contract import Artifact
from marple.tools.plots import ACCENT, CONTROL, REFERENCE, TARGET, figure, plot_artifact, visible

if TYPE_CHECKING:
    from marple.tools.saes.comparison import Comparison

__all__ = ["comparison_plot", "token_heat_map"]

_TOKENS = 60


def token_heat_map(
    name: str, tokens: Sequence[str], rows: Sequence[str], values: NDArray[np.float32], *, title: str, first: int = 0
) -> Artifact:
    """Activation of each feature (row) at each token (column); of long texts the last 60 tokens.

    Args:
        name: of the artifact.
        tokens: text of each token.
        rows: name of each feature.
        values: ``(feature, token)``.
        title: over the plot.
        first: position of the first token.
    """
    begin = max(0, len(tokens) - _TOKENS)
    shown, part = tokens[begin:], values[:, begin:]
    with figure(2.2 + 0.22 * max(8, len(shown)), 1.5 + 0.27 * max(2, len(rows))) as (made, (axes,)):
        image = axes.imshow(part, aspect="auto", cmap="Blues", vmin=0, interpolation="nearest")
        axes.set_xticks(range(len(shown)), [visible(token, limit=12) for token in shown], rotation=90, fontsize=7)
        axes.set_yticks(range(len(rows)), [visible(row, limit=34) for row in rows], fontsize=8)
        span = f" (tokens {first + begin} to {first + len(tokens) - 1})" if begin else ""
        axes.set(xlabel=f"token{span}", ylabel="feature", title=title)
        axes.grid(visible=False)
        made.colorbar(image, label="activation")
        return plot_artifact(name, made)


def comparison_plot(found: Comparison, labels: Sequence[str], *, first: str, second: str, shown: int = 12) -> Artifact:
    """The strongest features' means in both sets (left); every feature's score beside the null's (right)."""
    rows = list(found.order[:shown])[::-1]
    with figure(10.0, 1.6 + 0.3 * max(4, len(rows)), columns=2) as (made, (left, right)):
        places = np.arange(len(rows))
        left.barh(places + 0.2, found.first_mean[rows], height=0.38, color=TARGET, label=first)
        left.barh(places - 0.2, found.second_mean[rows], height=0.38, color=REFERENCE, label=second)
        left.set_yticks(places, [visible(labels[at], limit=34) for at in range(len(rows))][::-1], fontsize=8)
        left.set(xlabel="mean activation", title="features that differ most")
        left.legend(loc="best")
        scores = np.sort(np.abs(found.score))[::-1]
        right.plot(np.arange(1, len(scores) + 1), scores, ".", color=TARGET, markersize=4, label="feature")
        right.axhspan(0, found.threshold, color=CONTROL, alpha=0.25, linewidth=0, label="95 % of the null's largest")
        right.axhline(found.threshold, color=ACCENT, linewidth=1, linestyle="--")
        right.set(xscale="log", xlabel="rank", ylabel="|moderated t|", title="beside shuffled labels")
        # The common style shows no mathematics, which the default labels of a logarithmic axis are.
        ticks = [10**power for power in range(len(str(len(scores))))]
        right.set_xticks(ticks, [str(tick) for tick in ticks])
        right.legend(loc="best")
        return plot_artifact("sae_compare", made)
