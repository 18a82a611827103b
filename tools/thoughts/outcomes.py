"""What a reply comes out as, and whether two sets of replies come out differently."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from marple.errors import ToolError
from marple.tools.ngrams import word_edges

__all__ = ["NO_OUTCOME", "Change", "OutcomeRule", "compare_outcomes", "share_interval", "shares", "total_variation"]

NO_OUTCOME = "(none of them)"
"""The outcome of a reply that says none of the words asked for."""
_SHUFFLES = 2000
_Z_95 = 1.959963984540054


@dataclass(frozen=True)
class OutcomeRule:
    """How a reply is put down to one outcome."""

    words: tuple[str, ...] = ()
    """Words or phrases; the outcome is which of them the reply says. Empty: the reply itself is the outcome."""
    after: str = ""
    """Only what follows the last occurrence of this text counts, if it occurs."""

    def __post_init__(self) -> None:
        if any(not word.strip() for word in self.words):
            raise ToolError('outcomes: a word is only white space; for example "outcomes": ["yes", "no"]')

    def of(self, text: str) -> str:
        """The outcome of a reply: words in any case and as whole words; without words the text, normalised."""
        answer = text.rpartition(self.after)[2] if self.after else text
        if not self.words:
            return " ".join(answer.casefold().split()).strip(" .!?\"'") or "(empty)"
        said = [word for word in self.words if _said(word, answer)]
        return " + ".join(said) or NO_OUTCOME


@dataclass(frozen=True)
class Change:
    """How far the outcomes of two sets of replies lie apart."""

    distance: float
    """Total variation: the share of replies that would have to come out otherwise, 0 to 1."""
    p: float
    """Share of shuffles of the two sets that reach this distance (with one added, Phipson & Smyth 2010)."""
    chance: float
    """95th percentile of the distances of the shuffles."""

    def to_dict(self) -> dict[str, Any]:
        """As data."""
        return {"distance": self.distance, "p": self.p, "chance_95": self.chance}


def shares(outcomes: Sequence[str]) -> dict[str, float]:
    """Share of each outcome, the most frequent first."""
    return {name: count / len(outcomes) for name, count in sorted(Counter(outcomes).items(), key=_by_count)}


def total_variation(first: Sequence[str], second: Sequence[str]) -> float:
    """Half the summed difference of the two distributions: 0 where they are equal, 1 where they share nothing."""
    ours, theirs = Counter(first), Counter(second)
    # In whole numbers, so that the order of the outcomes does not matter.
    apart = sum(abs(ours[name] * len(second) - theirs[name] * len(first)) for name in ours | theirs)
    return apart / (2 * len(first) * len(second))


def compare_outcomes(first: Sequence[str], second: Sequence[str], *, seed: int) -> Change:
    """Total variation between two sets of outcomes with a permutation test: the replies are shuffled across the sets.

    Args:
        first: outcome of each reply.
        second: the same for the other set; neither may be empty.
        seed: of the shuffles.
    """
    names = {name: at for at, name in enumerate(dict.fromkeys([*first, *second]))}
    codes = np.array([names[name] for name in (*first, *second)])
    generator = np.random.default_rng(seed)
    shuffled = generator.permuted(np.tile(codes, (_SHUFFLES, 1)), axis=1)
    rows = np.arange(_SHUFFLES)[:, None] * len(names)
    left = np.bincount((shuffled[:, : len(first)] + rows).ravel(), minlength=_SHUFFLES * len(names))
    counts = left.reshape(_SHUFFLES, -1)
    total = np.bincount(codes, minlength=len(names))
    distances = np.abs(counts / len(first) - (total - counts) / len(second)).sum(axis=1) / 2
    observed = total_variation(first, second)
    p = (1 + int((distances >= observed - 1e-9).sum())) / (1 + _SHUFFLES)
    return Change(observed, p, float(np.quantile(distances, 0.95)))


def share_interval(count: float, total: float) -> tuple[float, float]:
    """95 % interval of a share by the score method (Wilson 1927)."""
    share = count / total
    middle = share + _Z_95**2 / (2 * total)
    reach = _Z_95 * np.sqrt(share * (1 - share) / total + _Z_95**2 / (4 * total**2))
    scale = 1 + _Z_95**2 / total
    return float((middle - reach) / scale), float((middle + reach) / scale)


def _said(word: str, text: str) -> bool:
    before, behind = word_edges(word.strip())
    return re.search(before + r"\s+".join(map(re.escape, word.split())) + behind, text, re.IGNORECASE) is not None


def _by_count(entry: tuple[str, int]) -> tuple[int, str]:
    return -entry[1], entry[0]
