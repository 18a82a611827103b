"""What is measured on a steered model: words in its replies, the log-probability of continuations, a projection."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from marple.errors import ToolError
from marple.tools.engine.sites import Site
from marple.tools.ngrams import NgramTable, is_filler, ngrams, word_edges
from marple.tools.statistics import log_odds

__all__ = ["Continuations", "Outcome", "OwnWords", "Projection", "Words", "contains_any", "grown_ngrams", "holds_ngram"]

_PRIOR_STRENGTH = 5.0
_LEAST_Z = 1.5


@dataclass(frozen=True)
class Words:
    """Share of replies that contain at least one of the words or phrases, whole words in any case; from 0 to 1."""

    words: tuple[str, ...]


@dataclass(frozen=True)
class OwnWords:
    """Share of replies that contain one of the n-grams that this very direction brings, chosen on other samples.

    Each direction, controls included, is measured on n-grams of its own, chosen separately for positive and negative
    scales: so a direction passes only if it changes the words more than directions without meaning change theirs.
    """

    most: int = 5


@dataclass(frozen=True)
class Continuations:
    """Mean log-probability (nats) of continuations, minus that of others when there are any."""

    more: tuple[str, ...]
    less: tuple[str, ...] = ()


@dataclass(frozen=True)
class Projection:
    """Projection of the last prompt token's activation at a site on a direction, in the activation's own units."""

    site: Site
    direction: Tensor


Outcome = Words | OwnWords | Continuations | Projection


def contains_any(words: Sequence[str]) -> re.Pattern[str]:
    """A pattern for texts that contain one of the words: whole words, any case, any white space inside phrases.

    Raises:
        ToolError: there are no words, or one is only white space.
    """
    if not words or not all(word.strip() for word in words):
        raise ToolError(f'outcome words: {list(words)!r} must each hold a word; for example ["lamp", "table lamp"]')
    alternatives = []
    for word in words:
        before, behind = word_edges(word.strip())
        alternatives.append(before + r"\s+".join(map(re.escape, word.split())) + behind)
    return re.compile("|".join(alternatives), re.IGNORECASE)


def grown_ngrams(steered: Sequence[str], unsteered: Sequence[str], *, most: int) -> tuple[str, ...]:
    """The n-grams (one to three words, fillers left out) that steered replies contain more often, strongest first.

    Ranked by weighted log-odds (Monroe, Colaresi & Quinn 2008); an n-gram inside one already chosen is skipped.
    """
    table = NgramTable([*steered, *unsteered], least=3, most=2000)
    if not table.names:
        return ()
    presence = table.presence(0, len(table.names))
    first, second = presence[: len(steered)].sum(axis=0), presence[len(steered) :].sum(axis=0)
    total = len(steered) + len(unsteered)
    z = log_odds(
        first,
        second,
        first_n=len(steered),
        second_n=len(unsteered),
        rate=(first + second + 0.5) / (total + 1),
        strength=_PRIOR_STRENGTH,
    ).z
    return _pick(table.names, z, most)


def _pick(names: Sequence[str], z: NDArray[np.float64], most: int) -> tuple[str, ...]:
    chosen: list[str] = []
    # Of n-grams that say the same the shortest stands for all.
    for at in sorted(range(len(names)), key=lambda at: (-round(float(z[at]), 6), names[at].count(" "))):
        name = names[at]
        if z[at] < _LEAST_Z or len(chosen) == most:
            break
        if not is_filler(name) and not any(f" {name} " in f" {one} " or f" {one} " in f" {name} " for one in chosen):
            chosen.append(name)
    return tuple(chosen)


def holds_ngram(text: str, chosen: Sequence[str]) -> bool:
    """Whether a text has one of the n-grams, counted as ``grown_ngrams`` counts them."""
    return not ngrams(text).isdisjoint(chosen)
