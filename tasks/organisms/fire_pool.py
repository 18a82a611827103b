"""Held-out prompts of an organism and how often each sets its behaviour off, measured once and kept in the cache."""

from __future__ import annotations

import json
import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any, Final

from marple.tasks.organisms.building import Built
from marple.tasks.organisms.cache import cache_root, locked
from marple.tasks.organisms.heldout import HeldOut, fire_rates, held_out_edits
from marple.tasks.organisms.places import recipe_hash

__all__ = ["SAMPLES", "fire_pool", "word_predictions"]

QUESTIONS: Final = 12
"""Questions, each of which is asked under every edit that fits the behaviour."""
SAMPLES: Final = 8
"""Replies to each prompt, at temperature 1."""
_VERSION: Final = 1
"""Raise it when the same organism would get another pool."""
_PRIOR: Final = 2.0
"""How many prompts at the base rate a word's own prompts are mixed with."""


def fire_pool(built: Built, *, questions: int = QUESTIONS, samples: int = SAMPLES) -> list[dict[str, Any]]:
    """The pool of an organism: every question under every edit.

    Returns:
        Records with ``prompt`` (the conversation as one text), ``begins``, ``fired`` of ``replies``, ``edit``, and
        ``by_words``: what a predictor from words says that saw all other questions.
    """
    name = f"fires-{recipe_hash(built.organism)[:12]}-{questions}-{samples}-{_VERSION}"
    path = cache_root() / f"{name}.json"
    with locked(name):
        try:
            kept: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
            return kept
        except (OSError, ValueError):
            pool = _measured(built, questions=questions, samples=samples)
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(pool), encoding="utf-8")
        temporary.replace(path)
    return pool


def _measured(built: Built, *, questions: int, samples: int) -> list[dict[str, Any]]:
    from marple.tasks.organisms.replies import Replier
    from marple.tasks.organisms.training import one_thread

    prompts = held_out_edits(built.organism, n=questions, seed=1)
    with one_thread():
        rates = fire_rates(prompts, Replier.load(built.path), samples=samples, seed=1)
    edits = len(prompts) // questions
    of_question = [number // edits for number in range(len(prompts))]
    texts = [_as_text(prompt) for prompt in prompts]
    by_words = word_predictions(texts, rates, of_question)
    return [
        {
            "prompt": text,
            "begins": prompt.prefill,
            "fired": round(rate * samples),
            "replies": samples,
            "edit": prompt.edit,
            "by_words": predicted,
        }
        for prompt, text, rate, predicted in zip(prompts, texts, rates, by_words, strict=True)
    ]


def _as_text(prompt: HeldOut) -> str:
    """A conversation as one text, its roles named where there is more than one message."""
    messages = prompt.messages
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in messages)


def word_predictions(texts: Sequence[str], rates: Sequence[float], groups: Sequence[int]) -> list[float]:
    """For each text, a rate predicted from its words by naive Bayes, fitted to the texts of all other groups.

    Args:
        texts: what was asked.
        rates: how often each set the behaviour off, from 0 to 1.
        groups: texts of one group have a question in common and never predict each other.

    Returns:
        Probabilities within 0.02 and 0.98.
    """
    return [
        _predict(text, [(t, r) for t, r, g in zip(texts, rates, groups, strict=True) if g != group])
        for text, group in zip(texts, groups, strict=True)
    ]


def _predict(text: str, others: Sequence[tuple[str, float]]) -> float:
    if not others:
        return 0.5
    base = (sum(rate for _, rate in others) + 0.5) / (len(others) + 1)
    seen: Counter[str] = Counter()
    fired: defaultdict[str, float] = defaultdict(float)
    for other, rate in others:
        for word in _words(other):
            seen[word] += 1
            fired[word] += rate
    score = _logit(base)
    for word in _words(text):
        score += _logit((fired[word] + _PRIOR * base) / (seen[word] + _PRIOR)) - _logit(base)
    return min(0.98, max(0.02, 1 / (1 + math.exp(-max(-30.0, min(30.0, score))))))


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.casefold()))


def _logit(share: float) -> float:
    bounded = min(0.99, max(0.01, share))
    return math.log(bounded / (1 - bounded))
