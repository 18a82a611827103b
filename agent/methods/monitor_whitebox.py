"""A monitor from labelled conversations, white-box: a direction in the activations of the replies.

Ridge probes on the last token and on the mean over tokens, at every layer, are made from conversations about half of
the subjects and tried on those about the other half, in other words: kind ones, and the behaviour quoted and rejected.
A mean over tokens holds their words: it is taken where there are many subjects, else the reading that carries best.
That probe is made again from all; its layer is the one at which, with subjects kept apart, it tells most. Where there
are too few conversations for probes, it is the difference of means. Where probes are not offered, it is the SAE
feature that tells most; without an SAE the difference of means.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from marple.agent.corpus_reading import Messages, Steps
from marple.agent.investigator import Done, Request
from marple.agent.methods.monitor_blackbox import MonitorBlackbox
from marple.agent.methods.monitor_rewording import TESTED, TRAINED, Sides, halves, reworded, subjects

__all__ = ["METHOD", "MonitorWhitebox", "fit_directions", "fit_feature", "fit_monitor"]

READINGS = ("mean", "last")
MANY = 20
"""Subjects in which the behaviour is seen, from which its words are no longer those of a few of them."""
MIDDLE = 1
"""The layer of a difference of means."""


class MonitorWhitebox(MonitorBlackbox):
    """One play of the method."""

    def _make(self, positive: Sequence[Messages], negative: Sequence[Messages], tools: Sequence[str]) -> Steps:
        yield from super()._make(positive, negative, tools)
        if "try_monitor" in tools:
            yield from fit_monitor(self, positive, negative, tools)


def fit_monitor(
    script: MonitorBlackbox, positive: Sequence[Messages], negative: Sequence[Messages], tools: Sequence[str]
) -> Steps:
    """Set a script's monitor by the first instrument that is offered: probes, SAE features, a difference of means."""
    if "probe" not in tools and "sae_features" in tools:
        yield from fit_feature(script, positive, negative)
    else:
        yield from fit_directions(script, positive, negative, probes="probe" in tools)


def fit_feature(script: MonitorBlackbox, positive: Sequence[Messages], negative: Sequence[Messages]) -> Steps:
    """Set a script's monitor to the SAE feature that tells the two sides apart best, in other words."""
    sides = reworded((list(positive), list(negative)), TRAINED)
    fit = {"method": "sae_feature", "positive": sides[0], "negative": sides[1]}
    (tried,) = yield [_tried(reworded((list(positive), list(negative)), TESTED), fit=fit)]
    if tried.ok:
        script.monitor = tried.data["monitor"]
        script.corpus.evidence.append(tried.id)
        script.found = f"one SAE feature tells the sides apart in other words, area {_area(tried):.2f}"


def fit_directions(
    script: MonitorBlackbox, positive: Sequence[Messages], negative: Sequence[Messages], *, probes: bool = True
) -> Steps:
    """Set a script's monitor to the direction that carries best to other subjects in other words."""
    parts = halves(positive, negative)
    whole = reworded((list(positive), list(negative)), TRAINED)
    areas = (yield from _carries(parts)) if probes else {}
    if areas:
        many = len(set(subjects([*positive, *negative])[: len(positive)])) >= MANY
        reading = "mean" if many else max(areas, key=lambda name: areas[name])
        (made,) = yield [_probe(whole, reading)]
        monitor = {"vector": made.data["handle"], "reading": reading} if made.ok else None
    else:
        fit = {"method": "difference_of_means", "layer": MIDDLE, "positive": whole[0], "negative": whole[1]}
        (made,) = yield [_tried(whole, fit=fit)]
        monitor = made.data["monitor"] if made.ok else None
    if monitor is None:
        return
    (tried,) = yield [_tried(whole, monitor=monitor)]
    if tried.ok:
        script.monitor = tried.data["monitor"]
        script.corpus.evidence += [made.id, tried.id]
        told = ", ".join(f"{name} {area:.2f}" for name, area in areas.items()) or "not tried, too few conversations"
        script.found = f"a direction tells other subjects in other words apart, area by reading: {told}"


def _carries(parts: tuple[Sides, Sides]) -> Steps:
    """By reading, the mean area of two probes, each on the subjects that it was not made from, in other words."""
    made = yield [_probe(reworded(part, TRAINED), reading) for reading in READINGS for part in parts]
    if not all(one.ok for one in made):
        return {}
    places = [(reading, part) for reading in READINGS for part in reversed(parts)]
    tried = yield [
        _tried(reworded(part, TESTED), monitor={"vector": one.data["handle"], "reading": reading})
        for one, (reading, part) in zip(made, places, strict=True)
    ]
    found: dict[str, float] = {}
    for one, (reading, _) in zip(tried, places, strict=True):
        found[reading] = found.get(reading, 0.0) + _area(one) / len(parts)
    return found


def _area(done: Done) -> float:
    return float(done.data["auroc"]["auroc"]) if done.ok else 0.0


def _probe(sides: Sides, reading: str) -> Request:
    positive, negative = sides
    groups = [f"about {subject}" for subject in subjects([*positive, *negative])]
    asked = {"positive": positive, "negative": negative, "groups": groups, "reading": reading, "method": "ridge"}
    return Request("probe", {**asked, "shuffles": 20}, "At which layer, with subjects kept apart?")


def _tried(sides: Sides, **how: Any) -> Request:
    positive, negative = sides
    labels = [True] * len(positive) + [False] * len(negative)
    return Request("try_monitor", {"conversations": [*positive, *negative], "labels": labels, **how}, "Does it carry?")


METHOD = MonitorWhitebox
