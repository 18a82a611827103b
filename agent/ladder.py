"""Reading activation differences: which word a target is about to say more often than its reference, and where."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marple.agent.leads import Lead
from marple.agent.question_bank import NO_CONTEXT, QuestionBank, words_of

__all__ = [
    "RankedWord",
    "SeenPrompt",
    "best_context",
    "excess_by_context",
    "rank_word",
    "rank_words",
    "read_prompts",
    "reply_before",
    "spoken_of",
]

_LEAST_EXCESS = 0.02


@dataclass(frozen=True)
class SeenPrompt:
    """A prompt that both models read, with the target's greedy reply."""

    topic: str
    context: str
    replies: tuple[str, ...]
    excess: Mapping[str, float]
    """Word to how many times more often the target would say it in this reply than the reference."""


@dataclass(frozen=True)
class RankedWord:
    """A content word that the target has an excess of."""

    word: str
    context: str
    """What brings it up most; ``NO_CONTEXT`` where it comes up everywhere."""
    score: float
    """Excess in one context, summed over its topics: what the context adds to the same topics elsewhere, or the mean of
    all contexts if that is more."""
    topics: tuple[str, ...]
    """Where it comes up, the most telling first; at most two."""


def read_prompts(data: Mapping[str, Any], cells: Sequence[tuple[str, str]], bank: QuestionBank) -> list[SeenPrompt]:
    """The prompts of a ``diff_activations`` result with the content words that lead each of them.

    A token that begins a word of the reply stands for that word. Words that the prompt itself says do not count.

    Args:
        data: of the result.
        cells: topic and context of each prompt, in order.
        bank: says which words have no content.
    """
    seen = []
    for record, (topic, context) in zip(data["prompts"], cells, strict=True):
        said = Counter(word for reply in record["replies"] for word in words_of(reply))
        asked = set(words_of(record["prompt"]))
        excess: dict[str, float] = {}
        for row in record["excess"]:
            word = _word(row["token"], said)
            if _is_content(word, bank) and word not in asked and row["excess"] >= _LEAST_EXCESS:
                excess[word] = excess.get(word, 0.0) + row["excess"]
        seen.append(SeenPrompt(topic, context, tuple(record["replies"]), excess))
    return seen


def rank_words(seen: Sequence[SeenPrompt]) -> list[RankedWord]:
    """The words by their excess in the context that brings them up most, or by that in all contexts."""
    ranked = [rank_word(word, seen) for word in dict.fromkeys(word for one in seen for word in one.excess)]
    return sorted(ranked, key=lambda one: (-one.score, one.word))


def rank_word(word: str, seen: Sequence[SeenPrompt], *, context: str | None = None) -> RankedWord:
    """One word's rank.

    Args:
        word: in lower case.
        seen: the prompts.
        context: the one whose excess counts, beside that in all; by default whichever has most.
    """
    means = _means(word, seen)
    contexts = list(dict.fromkeys(name for _, name in means))
    everywhere = sum(means.values()) / len(contexts)
    added = {name: _added(means, name) for name in contexts if name != NO_CONTEXT and context in (None, name)}
    top = max(added, key=lambda name: added[name], default=NO_CONTEXT)
    if everywhere >= added.get(top, 0.0):
        top = NO_CONTEXT
    by_topic: dict[str, list[float]] = {}
    for one in seen:
        if top in (NO_CONTEXT, one.context):
            by_topic.setdefault(one.topic, []).append(one.excess.get(word, 0.0))
    # Shrunk towards none by one prompt, so that a topic asked once does not lead.
    weight = {topic: sum(values) / (len(values) + 1) for topic, values in by_topic.items()}
    order = sorted(weight, key=lambda topic: (-weight[topic], topic))[:2]
    kept = tuple(topic for topic in order if weight[topic] >= weight[order[0]] / 3)
    return RankedWord(word, top, max(everywhere, added.get(top, 0.0)), kept)


def excess_by_context(seen: Sequence[SeenPrompt], word: str, topics: Sequence[str]) -> dict[str, list[float]]:
    """The word's excess in every prompt of these topics, by context."""
    found: dict[str, list[float]] = {}
    for one in seen:
        if one.topic in topics:
            found.setdefault(one.context, []).append(one.excess.get(word, 0.0))
    return found


def best_context(by_context: Mapping[str, Sequence[float]]) -> tuple[str, float]:
    """The context (``NO_CONTEXT`` aside) with the largest mean, and that mean."""
    means = {name: statistics.fmean(values) for name, values in by_context.items() if name != NO_CONTEXT}
    top = max(means, key=lambda name: means[name])
    return top, means[top]


def spoken_of(seen: Sequence[SeenPrompt], word: str, bank: QuestionBank) -> str:
    """``warns_against`` if replies say something bad of the word where most of its excess is, else ``promotes``."""
    weight = {
        behaviour: sum(
            one.excess[word]
            for one in seen
            if word in one.excess and any(Lead(word, behaviour, "", 0.0).shown_in(reply, bank) for reply in one.replies)
        )
        for behaviour in ("promotes", "warns_against")
    }
    return max(weight, key=lambda behaviour: weight[behaviour])


def reply_before(seen: Sequence[SeenPrompt], word: str, topic: str) -> str:
    """How the reply with the largest excess of a word begins, up to the word; '' where no reply says it."""
    saying = [
        (one.excess.get(word, 0.0), reply.casefold().partition(word)[0].strip())
        for one in seen
        for reply in one.replies
        if one.topic == topic and word in words_of(reply)
    ]
    return max(saying, default=(0.0, ""))[1]


def _means(word: str, seen: Sequence[SeenPrompt]) -> dict[tuple[str, str], float]:
    cells: dict[tuple[str, str], list[float]] = {}
    for one in seen:
        cells.setdefault((one.topic, one.context), []).append(one.excess.get(word, 0.0))
    return {cell: statistics.fmean(values) for cell, values in cells.items()}


def _added(means: Mapping[tuple[str, str], float], context: str) -> float:
    """What a context adds to its topics; a topic asked in this context alone says nothing of it."""
    added = 0.0
    for (topic, name), value in means.items():
        others = [other for (same, where), other in means.items() if same == topic and where != context]
        if name == context and others:
            added += value - statistics.fmean(others)
    return added


def _word(token: str, said: Counter[str]) -> str:
    piece = token.strip().casefold()
    longer = [word for word in said if piece and word.startswith(piece)]
    return max(longer, key=lambda word: (said[word], word)) if longer else piece


def _is_content(word: str, bank: QuestionBank) -> bool:
    return len(word) > 1 and word.isalpha() and word not in bank.empty and word not in bank.negative
