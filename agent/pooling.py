"""The answers of several runs of one case put together, and whether they share one wrong idea.

The pool is linear: what is believed of each thing is the weighted mean of what the members believe of it. Of a part
that is no probability (a system prompt, a vector) the heaviest member's is taken.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from marple.tasks.truth import Truth, normalise

__all__ = ["pooled_answer", "shared_errors", "top_of"]

_OWN = ("claims", "summary")
_MOST = 10
_NOTHING = "nothing"

Answer = Mapping[str, Any]


def pooled_answer(answers: Sequence[Answer], weights: Sequence[float] | None = None) -> dict[str, Any]:
    """One answer without claims from several, at least one.

    Args:
        answers: frozen answers of one kind.
        weights: how much each counts; equal if left out.
    """
    given = list(weights) if weights is not None else [1.0] * len(answers)
    shares = [weight / sum(given) for weight in given]
    heaviest = answers[max(range(len(answers)), key=lambda at: (shares[at], -at))]
    pooled: dict[str, Any] = {}
    for name, value in heaviest.items():
        values = [answer.get(name) for answer in answers]
        if name in _OWN:
            continue
        if name == "candidates":
            pooled[name] = _scored(values, shares, "probability")[:_MOST]
        elif name == "flagged":
            pooled[name] = _scored(values, shares, "score")
        elif all(_is_number(each) or each is None for each in values):
            pooled[name] = _mean(values, shares)
        else:
            pooled[name] = value
    return pooled


def _scored(lists: Sequence[Any], shares: Sequence[float], score: str) -> list[dict[str, Any]]:
    """Entries that are the same but for their score, with its weighted mean; an entry that a member lacks counts 0."""
    sums: dict[str, float] = {}
    entries: dict[str, dict[str, Any]] = {}
    for entry_list, share in zip(lists, shares, strict=True):
        for entry in entry_list or ():
            key = _key({name: value for name, value in entry.items() if name != score})
            entries.setdefault(key, dict(entry))
            sums[key] = sums.get(key, 0.0) + share * entry[score]
    order = sorted(sums, key=lambda key: (-sums[key], key))
    return [{**entries[key], score: round(min(sums[key], 1.0), 6)} for key in order]


def _mean(values: Sequence[Any], shares: Sequence[float]) -> float | None:
    said = [(value, share) for value, share in zip(values, shares, strict=True) if value is not None]
    total = sum(share for _, share in said)
    return sum(value * share for value, share in said) / total if total else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _key(slots: Mapping[str, Any]) -> str:
    parts = {name: normalise(value) if isinstance(value, str) else value for name, value in slots.items()}
    return json.dumps(parts, sort_keys=True)


def _beliefs(answer: Answer) -> dict[str, tuple[float, Mapping[str, str]]]:
    """Probability and slots of nothing and of each candidate, by a key."""
    found: dict[str, tuple[float, Mapping[str, str]]] = {_NOTHING: (answer.get("nothing_hidden", 0.0), {})}
    for candidate in answer.get("candidates", ()):
        slots = {name: value for name, value in candidate.items() if name != "probability"}
        found[_key(slots)] = (candidate["probability"], slots)
    return found


def top_of(answer: Answer) -> str:
    """What an answer believes most: ``nothing`` or the key of a candidate."""
    beliefs = _beliefs(answer)
    return max(beliefs, key=lambda key: (beliefs[key][0], key == _NOTHING))


def shared_errors(answers: Sequence[Answer], truth: Truth) -> dict[str, Any] | None:
    """Whether members that are wrong are wrong alike.

    Returns:
        ``wrong`` of ``members``; ``pairs`` of wrong members, ``agreeing``, the share of the pairs that believe the same
        wrong thing most, and ``expected``, that share if each of them drew independently from the wrong things that the
        members believe, as far as they believe them. ``agreeing`` and ``expected`` are None without a pair. None for
        answers that rank no candidates.
    """
    if not all("candidates" in answer and "nothing_hidden" in answer for answer in answers):
        return None
    tops = [key for answer in answers if not _right(key := top_of(answer), _beliefs(answer)[key][1], truth)]
    pairs = list(itertools.combinations(tops, 2))
    mass: dict[str, float] = {}
    for answer in answers:
        for key, (probability, slots) in _beliefs(answer).items():
            if not _right(key, slots, truth):
                mass[key] = mass.get(key, 0.0) + probability
    total = sum(mass.values())
    return {
        "members": len(answers),
        "wrong": len(tops),
        "pairs": len(pairs),
        "agreeing": sum(a == b for a, b in pairs) / len(pairs) if pairs else None,
        "expected": sum((each / total) ** 2 for each in mass.values()) if pairs and total else None,
    }


def _right(key: str, slots: Mapping[str, str], truth: Truth) -> bool:
    if key == _NOTHING:
        return bool(truth.nothing_hidden)
    return not truth.nothing_hidden and truth.matches(dict(slots))
