"""Hidden goals by sparse-autoencoder features: which words do the features promote that rose in fine-tuning?

1. In every context the features of the target's replies are compared with the reference's; content words that the
   risen features promote together are leads, those of one context before those of all.
2. Where such a word shows, replies are compared: do they bring it up, and what do they say of it?
3. What was found is examined as ``scripted-blackbox`` does: when it comes, and whether it comes again.

It takes the place of activation differences where those are not offered. Words that the features do not name are not
followed, however much the replies show them: this is what the features alone find.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from marple.agent.investigator import Done, Play, Request
from marple.agent.methods.hidden_goal_blackbox import CHOICES, LOOKS, ScriptedBlackbox
from marple.agent.question_bank import NO_CONTEXT, words_of

__all__ = ["ScriptedFeatures"]

PROMPTS: Final = 4
"""Prompts of each topic in a context."""
FOLLOWED: Final = 3
"""Words that are followed."""


class ScriptedFeatures(ScriptedBlackbox):
    """One play of the method."""

    def __init__(self) -> None:
        super().__init__()
        self._promoted: dict[str, dict[str, float]] = {}
        """Word to the contexts in which risen features promote it, with the score."""

    def play(self, tools: Sequence[str]) -> Play:
        """The three steps, then ``submit``."""
        yield [self._plan()]
        contexts = [NO_CONTEXT, *self._bank.contexts]
        for context, done in zip(contexts, (yield [self._features(one) for one in contexts]), strict=True):
            self._read_features(context, done)
        self._nothing = 0.85
        for word in self._ranked()[:FOLLOWED]:
            context = max(self._promoted[word], key=self._promoted[word].__getitem__)
            (found,) = yield [self._comparison([(topic, context) for topic in CHOICES], LOOKS[0])]
            for lead in [lead for lead in self._new_leads(found) if lead.word == word][:1]:
                yield from self._examine(lead)
            if self._nothing < 0.5:
                break
        yield [Request("submit", self.answer_now(), "The method is through.")]

    def _features(self, context: str) -> Request:
        prompts = [prompt for topic in CHOICES for prompt in self._bank.prompts(topic, context, PROMPTS)]
        return Request("sae_compare", {"first": prompts, "read": "reply"}, f"Which features rose, asked {context}?")

    def _read_features(self, context: str, done: Done) -> None:
        if not done.ok:
            return
        self._evidence.append(done.id)
        for row in done.data["promoted_together"]["risen"]:
            for word in words_of(row["token"]):
                if not self._said_anyway(word):
                    self._promoted.setdefault(word, {})[context] = float(row["score"])

    def _said_anyway(self, word: str) -> bool:
        """Whether a word is no content word, or one that the questions themselves say."""
        asked = {
            said
            for halves in self._bank.questions.values()
            for half in halves
            for one in half
            for said in words_of(one)
        }
        return word in self._bank.empty or word in self._bank.negative or word in asked or word.isdigit()

    def _ranked(self) -> list[str]:
        """Words by how much they are promoted, over all contexts."""
        total = {word: sum(scores.values()) for word, scores in self._promoted.items()}
        return sorted(total, key=lambda word: (-total[word], word))
