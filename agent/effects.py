"""Effects: what a claim says a call shows, in a form that the same call, made again, can be held against.

What a claim states itself comes first (`Shows`), then what was predicted of its calls and came true, then what a call
says of itself: a verdict, or the words that it found.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marple.agent.checking import replies_in, share_with

__all__ = ["AGAIN", "Effect", "Measured", "measure", "own_effect", "predicted_effect", "stated_effect"]

AGAIN = 0.5
"""Share of the words found that must be found again."""

_WORDS = 20
"""Words found that are kept of a call, in its order."""
_LEADING = 5
"""Leading features' tokens that count as found."""

Effect = Mapping[str, Any]
"""JSON values: ``sort`` is ``share``, ``verdict`` or ``found``; the rest says what is expected."""


@dataclass(frozen=True)
class Measured:
    """An effect as a call shows it."""

    value: float | str | None
    """The share, the verdict, or the share of the words found that were found again; None: it cannot be told."""
    appears: bool
    """Whether it is as the effect says."""

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {"value": self.value, "appears": self.appears}


def stated_effect(shows: Mapping[str, Any]) -> Effect:
    """The effect that a claim states."""
    bound = "at_most" if shows["at_least"] is None else "at_least"
    return _share(shows["word"], bound, shows[bound], shows["condition"])


def predicted_effect(prediction: Mapping[str, Any]) -> Effect:
    """The effect that a prediction states."""
    return _share(prediction["word"], "at_least", prediction["at_least"], prediction["condition"])


def own_effect(data: Mapping[str, Any]) -> Effect | None:
    """What a call's own data claims; None where it claims nothing."""
    if data.get("verdict") == "causal":
        return {"sort": "verdict", "verdict": "causal"}
    found = list(dict.fromkeys(_found(data)))[:_WORDS]
    return {"sort": "found", "found": found} if found else None


def measure(effect: Effect, data: Mapping[str, Any]) -> Measured:
    """Hold an effect against the data of a call."""
    if effect["sort"] == "verdict":
        verdict = str(data.get("verdict"))
        return Measured(verdict, verdict == effect["verdict"])
    if effect["sort"] == "found":
        again = set(_found(data))
        share = sum(one in again for one in effect["found"]) / len(effect["found"])
        return Measured(share, share >= AGAIN)
    replies = list(replies_in(data, effect["condition"]))
    if not replies:
        return Measured(None, False)
    share = share_with(effect["word"], replies)
    return Measured(share, share <= effect["at_most"] if "at_most" in effect else share >= effect["at_least"])


def _share(word: str, bound: str, threshold: float, condition: str) -> Effect:
    return {"sort": "share", "word": word, bound: threshold, "condition": condition}


def _found(data: Any) -> Iterator[str]:
    """Every n-gram or token that a table marks as found, with its condition and direction; and risen features' tokens.

    As text, for it goes into events.
    """
    if isinstance(data, list):
        for value in data:
            yield from _found(value)
    elif isinstance(data, Mapping):
        name = data.get("ngram", data.get("token"))
        if data.get("found") is True and name is not None:
            direction = "less" if data.get("log_odds", data.get("effect", 1)) < 0 else "more"
            yield f"{name} {direction} ({data.get('condition') or 'all'})"
        for key, value in data.items():
            if key == "risen":
                yield from _tokens(value)
            else:
                yield from _found(value)


def _tokens(rows: Sequence[Any]) -> Iterator[str]:
    return (str(row["token"]) for row in rows[:_LEADING] if isinstance(row, Mapping) and "token" in row)
