"""A monitor from labelled conversations, white-box: the difference of means of the replies, at the best layer.

Layer and reading (the mean over the reply's tokens, or its last one) are chosen by the area under the ROC curve on
the half of the conversations that a direction was not made from.
"""

from __future__ import annotations

from collections.abc import Sequence

from marple.agent.corpus_reading import Messages, Steps
from marple.agent.investigator import Request
from marple.agent.methods.monitor_blackbox import MonitorBlackbox

__all__ = ["METHOD", "MonitorWhitebox", "fit_directions"]

LAYERS = (-4, -3, -2, -1)
"""The last ones; a model with fewer has what it has."""
ALIKE = 0.03
"""Areas so near to each other are equal."""


class MonitorWhitebox(MonitorBlackbox):
    """One play of the method."""

    def _make(self, positive: Sequence[Messages], negative: Sequence[Messages], tools: Sequence[str]) -> Steps:
        yield from super()._make(positive, negative, tools)
        if "try_monitor" in tools:
            yield from fit_directions(self, positive, negative)


def fit_directions(script: MonitorBlackbox, positive: Sequence[Messages], negative: Sequence[Messages]) -> Steps:
    """Set a script's monitor to the direction of the best layer, made from all conversations."""
    tested = [*positive[1::2], *negative[1::2]]
    labels = [True] * len(positive[1::2]) + [False] * len(negative[1::2])
    half = {"positive": positive[::2], "negative": negative[::2]}
    places = [(layer, reading) for layer in LAYERS for reading in ("mean", "last")]
    tried = yield [
        Request(
            "try_monitor", {"conversations": tested, "labels": labels, "fit": _fit(half, *place)}, "At which layer?"
        )
        for place in places
    ]
    areas = [done.data["auroc"]["auroc"] if done.ok else 0.0 for done in tried]
    # Deeper layers come again better on other subjects, so that of equals the last one is taken.
    best = max(at for at, area in enumerate(areas) if area >= max(areas) - ALIKE)
    fit = _fit({"positive": positive, "negative": negative}, *places[best])
    (made,) = yield [Request("try_monitor", {"conversations": tested, "fit": fit}, "From all of them.")]
    if made.ok:
        script.monitor = made.data["monitor"]
        script.corpus.evidence.append(tried[best].id)
        script.found = f"the difference of means tells held-out conversations apart with an area of {areas[best]:.2f}"


def _fit(sides: dict[str, Sequence[Messages]], layer: int, reading: str) -> dict[str, object]:
    return {"method": "difference_of_means", "layer": layer, "reading": reading, **sides}


METHOD = MonitorWhitebox
