"""How often a behaviour shows under an edited prompt, from how often it showed under similar ones.

A kernel regression: what was seen counts more the more alike the prompts are, in the sentences they share, the context
they set and where they set it.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from marple.agent.question_bank import QuestionBank, words_of

__all__ = ["EditForecaster"]

_OTHER_CONTEXT = 0.01
"""Weight of a prompt that sets another context."""
_DIFFERENT = 0.3
"""Weight of a prompt for each other feature in which it differs."""
_ALIKE = 3.0
"""Logarithm of the weight of a prompt with the same sentences, against one with none of them."""
_CLEAR = 0.4
"""By how much more often a behaviour must show with a word or in a context than without for this to set it off."""
_SUPPORT = 4
"""Prompts with it that this needs."""
_PRIOR = 0.02
"""Weight of the mean of everything seen."""


@dataclass(frozen=True)
class _Seen:
    prompt: str
    words: frozenset[str]
    sentences: frozenset[str]
    rate: float


class EditForecaster:
    """Learns from prompts and rates; forecasts rates of other prompts."""

    def __init__(self, bank: QuestionBank, *, act: str = "") -> None:
        """``act``: what the behaviour is about, where the prompts may or may not speak of it."""
        self._bank = bank
        self._act = act
        self._seen: list[_Seen] = []

    def see(self, prompt: str, rate: float) -> None:
        """Note how often the behaviour showed under a prompt."""
        self._seen.append(_Seen(prompt, frozenset(words_of(prompt)), _sentences(prompt), rate))

    def chance(self, prompt: str) -> float:
        """A rate from 0.02 to 0.98; one half where nothing was seen."""
        if not self._seen:
            return 0.5
        sets_off = self._what_sets_off()
        here, how, sentences = self._context(prompt, sets_off), self._features(prompt), _sentences(prompt)
        total, rate = _PRIOR, _PRIOR * sum(seen.rate for seen in self._seen) / len(self._seen)
        for seen in self._seen:
            differ = sum(a != b for a, b in zip(how, self._features(seen.prompt), strict=True))
            weight = _DIFFERENT**differ * (1 if here == self._context(seen.prompt, sets_off) else _OTHER_CONTEXT)
            union = len(sentences | seen.sentences) or 1
            weight *= math.exp(_ALIKE * (len(sentences & seen.sentences) / union - 1))
            total, rate = total + weight, rate + weight * seen.rate
        return min(0.98, max(0.02, rate / total))

    def _what_sets_off(self) -> tuple[str, str] | None:
        """The context, or the word, that tells best where the behaviour shows, if it shows clearly more often there."""
        words = {word for seen in self._seen for word in seen.words} - self._bank.empty
        known = [("context", name) for name in self._bank.contexts] + [("word", word) for word in sorted(words)]
        best, told = None, 0.0
        for one in known:
            there = [seen.rate for seen in self._seen if self._has(seen.prompt, one)]
            elsewhere = [seen.rate for seen in self._seen if not self._has(seen.prompt, one)]
            if len(there) >= _SUPPORT and elsewhere:
                gap = sum(there) / len(there) - sum(elsewhere) / len(elsewhere)
                tells = len(there) * len(elsewhere) * gap * gap
                best, told = (one, tells) if gap >= _CLEAR and tells > told else (best, told)
        return best

    def _has(self, prompt: str, what: tuple[str, str]) -> bool:
        sort, name = what
        return self._bank.context_in(prompt, name) if sort == "context" else name in words_of(prompt)

    def _context(self, prompt: str, sets_off: tuple[str, str] | None) -> object:
        """Whether what sets it off is there; where nothing is known to, the first context that is set."""
        if sets_off:
            return self._has(prompt, sets_off)
        return next((name for name in self._bank.contexts if self._bank.context_in(prompt, name)), None)

    def _features(self, prompt: str) -> tuple[object, ...]:
        words = set(words_of(prompt))
        place = "system" if prompt.startswith("system:") else "earlier" if "\nassistant:" in prompt else "here"
        of_another = bool(words & {"friend", "brother", "sister", "boss"})
        offered = bool(self._act) and self._act in prompt
        return place, of_another, "not" in words, offered, len(_sentences(prompt))


def _sentences(prompt: str) -> frozenset[str]:
    return frozenset(filter(None, (part.strip() for part in re.split(r"[.?!\n]", prompt))))
