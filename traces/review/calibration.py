"""Whether probabilities came true: forecasts on held-out prompts, and predictions about experiments."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from marple.traces.review.fields import items, mapping, number, of, rows, text
from marple.traces.review.opened import Opened

__all__ = ["Bin", "Calibration", "Question", "calibration"]

SIZE = 220.0
_EDGE = 34.0
_BINS = 5


@dataclass(frozen=True)
class Question:
    """One held-out question with the probability given and, where it is known, what was so."""

    id: str
    prompt: str
    replies: Sequence[str]
    probability: float
    outcome: float | None
    """1: reply A was the target's; or the share of replies that showed the behaviour."""


@dataclass(frozen=True)
class Bin:
    """Probabilities near each other and how often they came true."""

    x: float
    y: float
    n: int
    title: str

    @property
    def radius(self) -> float:
        """By how many they are."""
        return round(3 + min(9.0, 2.2 * math.sqrt(self.n)), 1)


@dataclass(frozen=True)
class Calibration:
    """A round of forecasts."""

    name: str
    bins: Sequence[Bin]
    rug: Sequence[tuple[float, float, str]]
    """Each question: place of its probability, of its outcome, and title."""
    questions: Sequence[Question]
    known: bool
    """Whether outcomes are known."""
    event: str
    size: float = SIZE
    edge: float = _EDGE


def calibration(run: Opened) -> list[Calibration]:
    """A plot for every round that was answered, and one for the predictions about experiments."""
    found = [
        one
        for name, words in (("replies", "Whose reply is it?"), ("fires", "Does it show?"))
        if (one := _round(run, name, words))
    ]
    predicted = _predictions(run)
    return [*found, *([predicted] if predicted else [])]


def _round(run: Opened, name: str, words: str) -> Calibration | None:
    said = [event for event in run.of_type("forecast") if event.payload.get("round", "replies") == name]
    given = next((event for event in said if "probabilities" in event.payload), None)
    if given is None:
        return None
    asked = next((rows(event.payload.get("items")) for event in said if "items" in event.payload), [])
    outcomes = items(of(run.result, "scores", "forecast" if name == "replies" else "fires", "outcomes"))
    questions = []
    for at, chance in enumerate(items(given.payload.get("probabilities"))[:500]):
        probability, item = number(chance), asked[at] if at < len(asked) else {}
        outcome = outcomes[at] if at < len(outcomes) else None
        if probability is not None:
            replies = [text(item.get(key)) for key in ("reply_a", "reply_b") if text(item.get(key))]
            real = float(outcome) if isinstance(outcome, bool) else number(outcome)
            identity = text(item.get("id")) or str(at + 1)
            questions.append(Question(identity, text(item.get("prompt")), replies, probability, real))
    return _plot(words, questions, given.id)


def _predictions(run: Opened) -> Calibration | None:
    made = {event.id: event.payload for event in run.of_type("prediction")}
    questions = []
    for event in run.of_type("measurement"):
        said = mapping(made.get(text(event.payload.get("prediction")), {}))
        probability, happened = number(said.get("probability")), event.payload.get("happened")
        if probability is not None and isinstance(happened, bool):
            questions.append(Question(event.id, text(said.get("statement")), (), probability, float(happened)))
    return _plot("Predictions about experiments", questions, questions[0].id) if questions else None


def _plot(name: str, questions: Sequence[Question], event: str) -> Calibration | None:
    if not questions:
        return None
    known = [one for one in questions if one.outcome is not None]
    wide = SIZE - 2 * _EDGE

    def x(p: float) -> float:
        return round(_EDGE + wide * min(max(p, 0.0), 1.0), 1)

    def y(p: float) -> float:
        return round(SIZE - _EDGE - wide * min(max(p, 0.0), 1.0), 1)

    rug = [
        (
            x(one.probability),
            y(one.outcome) if one.outcome is not None else SIZE - _EDGE,
            f"{one.id}: {one.probability:.2f}",
        )
        for one in questions
    ]
    bins = [Bin(x(p), y(share), n, f"{n} at about {p:.2f}: {share:.2f} came true") for p, share, n in _binned(known)]
    return Calibration(name, bins, rug, questions, bool(known), event)


def _binned(known: Sequence[Question]) -> Iterator[tuple[float, float, int]]:
    for at in range(_BINS):
        low, high = at / _BINS, (at + 1) / _BINS
        inside = [one for one in known if low <= one.probability < high or (at == _BINS - 1 and one.probability == 1)]
        if inside:
            n = len(inside)
            yield sum(one.probability for one in inside) / n, sum(one.outcome or 0.0 for one in inside) / n, n
