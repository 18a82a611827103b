"""A monitor from labelled conversations, white-box: a direction in the activations of the replies.

A ridge probe on the reply's last token and the difference of means at every layer, over all tokens of the reply or its
last one, are made from one half of the conversations; the one with the largest area under the ROC curve on the other
half is made again from all.
"""

from __future__ import annotations

from collections.abc import Sequence

from marple.agent.corpus_reading import Messages, Steps
from marple.agent.investigator import Done, Request
from marple.agent.methods.monitor_blackbox import MonitorBlackbox

__all__ = ["METHOD", "MonitorWhitebox", "fit_directions"]

LAYERS = (-4, -3, -2, -1)
"""The last ones; a model with fewer has what it has."""


class MonitorWhitebox(MonitorBlackbox):
    """One play of the method."""

    def _make(self, positive: Sequence[Messages], negative: Sequence[Messages], tools: Sequence[str]) -> Steps:
        yield from super()._make(positive, negative, tools)
        if "try_monitor" in tools:
            yield from fit_directions(self, positive, negative)


def fit_directions(script: MonitorBlackbox, positive: Sequence[Messages], negative: Sequence[Messages]) -> Steps:
    """Set a script's monitor to the direction that tells apart best what it was not made from."""
    tested = {
        "conversations": [*positive[1::2], *negative[1::2]],
        "labels": [True] * len(positive[1::2]) + [False] * len(negative[1::2]),
    }
    half = {"positive": positive[::2], "negative": negative[::2]}
    whole = {"positive": positive, "negative": negative}
    (probed,) = yield [_probe(half)]
    fits = [(layer, reading) for layer in LAYERS for reading in ("mean", "last")]
    tries = [Request("try_monitor", {**tested, "fit": _fit(half, *place)}, "At which layer?") for place in fits]
    tries += [_of_probe(probed, tested)] if probed.ok else []
    tried = yield tries
    areas = [done.data["auroc"]["auroc"] if done.ok else 0.0 for done in tried]
    best = areas.index(max(areas))
    if best < len(fits):
        (made,) = yield [Request("try_monitor", {**tested, "fit": _fit(whole, *fits[best])}, "From all of them.")]
    else:
        (probed,) = yield [_probe(whole)]
        (made,) = yield [_of_probe(probed, tested)]
    if made.ok:
        script.monitor = made.data["monitor"]
        script.corpus.evidence.append(tried[best].id)
        script.found = f"a direction tells conversations it was not made from apart with an area of {areas[best]:.2f}"


def _fit(sides: dict[str, Sequence[Messages]], layer: int, reading: str) -> dict[str, object]:
    return {"method": "difference_of_means", "layer": layer, "reading": reading, **sides}


def _probe(sides: dict[str, Sequence[Messages]]) -> Request:
    return Request("probe", {**sides, "reading": "last", "method": "ridge", "shuffles": 20}, "Or a probe?")


def _of_probe(probed: Done, tested: dict[str, object]) -> Request:
    monitor = {"vector": probed.data["handle"], "reading": "last"}
    return Request("try_monitor", {**tested, "monitor": monitor}, "How far does the probe carry?")


METHOD = MonitorWhitebox
