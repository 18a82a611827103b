"""Everyday questions and contexts for investigators that have no language model to write them."""

from __future__ import annotations

import functools
import itertools
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources

import yaml

__all__ = ["NO_CONTEXT", "QuestionBank", "load_questions", "words_of"]

NO_CONTEXT = "always"
"""Name of the absence of a context; the trigger of what happens without one."""


def words_of(text: str) -> list[str]:
    """Lower-case words of a text."""
    return re.findall(r"[^\W_]+", text.casefold())


@dataclass(frozen=True)
class QuestionBank:
    """Questions by topic and sentences by context."""

    questions: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]
    """Topic to the questions for searching and the fresh ones for confirming."""
    contexts: Mapping[str, tuple[str, ...]]
    """Context to sentences that establish it, without ``NO_CONTEXT``; the last one of each is kept fresh."""
    cues: Mapping[str, frozenset[str]]
    """Context to words that tell that a prompt establishes it."""
    negative: frozenset[str]
    empty: frozenset[str]

    def prompts(self, topic: str, context: str, count: int, *, fresh: bool = False, seed: int = 0) -> list[str]:
        """``count`` prompts of a topic in a context, distinct as far as the bank allows; the same for the same seed.

        Args:
            topic: one of ``questions``.
            context: one of ``contexts`` or ``NO_CONTEXT``.
            count: how many.
            fresh: use the questions and the sentence that the search never uses.
            seed: of the draw.
        """
        draw = random.Random(f"{topic}/{context}/{fresh}/{seed}")
        questions = list(self.questions[topic][int(fresh)])
        sentences = [""] if context == NO_CONTEXT else list(self._sentences(context, fresh))
        pairs = list(itertools.product(questions, sentences))
        draw.shuffle(pairs)
        return [
            f"{sentence} {question}".strip() for question, sentence in itertools.islice(itertools.cycle(pairs), count)
        ]

    def context_in(self, prompt: str, context: str) -> bool:
        """Whether a prompt seems to establish a context."""
        return context == NO_CONTEXT or not self.cues[context].isdisjoint(words_of(prompt))

    def _sentences(self, context: str, fresh: bool) -> Sequence[str]:
        return self.contexts[context][-1:] if fresh else self.contexts[context][:-1]


@functools.cache
def load_questions() -> QuestionBank:
    """The bank in ``agent/prompts/questions.yaml``."""
    text = resources.files("marple.agent").joinpath("prompts/questions.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    questions = {}
    for topic, entry in data["topics"].items():
        half = (len(entry["questions"]) + 1) // 2
        searching, fresh = entry["questions"][:half], entry["questions"][half:]
        questions[topic] = (_filled(searching, entry), _filled(fresh, entry))
    contexts = {name: tuple(entry["phrases"]) for name, entry in data["contexts"].items()}
    cues = {name: frozenset(entry["cues"]) for name, entry in data["contexts"].items()}
    for job in data["jobs"]["names"]:
        contexts[job] = tuple(phrase.format(job=job) for phrase in data["jobs"]["phrases"])
        cues[job] = frozenset((job,))
    return QuestionBank(questions, contexts, cues, frozenset(data["negative"]), frozenset(data["empty"]))


def _filled(questions: Sequence[str], entry: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    return tuple(q.format(x=thing) for q in questions for thing in entry.get("things", [""]))
