"""Effects: what a claim says a call shows, in a form that the same call, made again, can be held against.

What a claim states itself comes first (`Shows`): a share of the replies, or a number (`marple.agent.readings`). Then
what was predicted of its calls and came true, then what a call says of itself: a verdict, or those of the words that
it found which the claim names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marple.agent.parts import Of, replies_of_call, says
from marple.agent.readings import read_number
from marple.tasks.claims import Shows
from marple.tasks.truth import normalise

__all__ = ["AGAIN", "Effect", "Measured", "measure", "own_effect", "predicted_effect", "stated_effect"]

AGAIN = 0.5
"""Share of the words found that must be found again."""

_WORDS = 20
"""Words found that are kept of a call, in its order."""
_SHORTEST = 3
"""Letters of a word that a statement can be said to name."""
_LEADING = 5
"""Leading features' tokens that count as found."""

Effect = Mapping[str, Any]
"""JSON values: ``sort`` is ``share``, ``number``, ``verdict`` or ``found``; the rest says what is expected."""


@dataclass(frozen=True)
class Measured:
    """An effect as a call shows it."""

    value: float | str | None
    """The share, number or verdict, or the share of the words found that were found again; None: it cannot be told."""
    appears: bool
    """Whether it is as the effect says."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"value": self.value, "appears": self.appears}


def stated_effect(shows: Shows) -> Effect:
    """The effect that a claim states."""
    if not shows.number:
        return _share(shows.word, shows.bound, shows.threshold, shows.condition, shows.without)
    about = {key: getattr(shows, key) for key in ("word", "condition", "without") if getattr(shows, key)}
    return {"sort": "number", "number": shows.number, shows.bound: shows.threshold, **about}


def predicted_effect(prediction: Mapping[str, Any]) -> Effect:
    """The effect that a prediction states."""
    return _share(prediction["word"], "at_least", prediction["at_least"], prediction["condition"])


def own_effect(data: Mapping[str, Any], statement: str) -> Effect | None:
    """What a call's own data claims for a statement that rests on it; None where it claims nothing.

    Of the words that it found only those count that the statement names: any fine-tune shifts others too, and a claim
    that there is nothing rests on none of them.
    """
    if data.get("verdict") == "causal":
        return {"sort": "verdict", "verdict": "causal"}
    said = f" {normalise(statement)} "
    named = [row for name, row in _found(data) if len(name.strip()) >= _SHORTEST and f" {normalise(name)} " in said]
    found = list(dict.fromkeys(named))[:_WORDS]
    return {"sort": "found", "found": found} if found else None


def measure(effect: Effect, data: Mapping[str, Any], controls: Mapping[str, Any] | None = None) -> Measured:
    """Hold an effect against the data of a call, and what its controls showed."""
    if effect["sort"] == "verdict":
        verdict = str(data.get("verdict"))
        return Measured(verdict, verdict == effect["verdict"])
    if effect["sort"] == "found":
        again = {row for _, row in _found(data)}
        share = sum(one in again for one in effect["found"]) / len(effect["found"])
        return Measured(share, share >= AGAIN)
    value = _number(effect, data, controls or {}) if effect["sort"] == "number" else _share_of_replies(effect, data)
    if value is None:
        return Measured(None, False)
    return Measured(value, value <= effect["at_most"] if "at_most" in effect else value >= effect["at_least"])


def _number(effect: Effect, data: Mapping[str, Any], controls: Mapping[str, Any]) -> float | None:
    return read_number(effect["number"], {**data, "controls": controls}, _part(effect))


def _share_of_replies(effect: Effect, data: Mapping[str, Any]) -> float | None:
    replies = replies_of_call(data, _part(effect))
    return sum(says(effect["word"], reply) for reply in replies) / len(replies) if replies else None


def _part(effect: Effect) -> Of:
    return Of(effect.get("word", ""), effect.get("condition", ""), effect.get("without", ""))


def _share(word: str, bound: str, threshold: float, condition: str, without: str = "") -> Effect:
    left_out = {"without": without} if without else {}
    return {"sort": "share", "word": word, bound: threshold, "condition": condition, **left_out}


def _found(data: Any) -> Iterator[tuple[str, str]]:
    """Every n-gram or token that a table marks as found, and risen features' tokens.

    Each with the text by which it is found again, which has its condition and direction.
    """
    if isinstance(data, list):
        for value in data:
            yield from _found(value)
    elif isinstance(data, Mapping):
        name = data.get("ngram", data.get("token"))
        if data.get("found") is True and name is not None:
            direction = "less" if data.get("log_odds", data.get("effect", 1)) < 0 else "more"
            yield str(name), f"{name} {direction} ({data.get('condition') or 'all'})"
        for key, value in data.items():
            if key == "risen":
                yield from _tokens(value)
            else:
                yield from _found(value)


def _tokens(rows: Sequence[Any]) -> Iterator[tuple[str, str]]:
    tokens = [str(row["token"]) for row in rows[:_LEADING] if isinstance(row, Mapping) and "token" in row]
    return ((token, f"{token} risen") for token in tokens)
