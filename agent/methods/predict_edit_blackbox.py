"""Which edits of a prompt bring a behaviour on, black-box tools only.

1. The examples of the brief are asked, beside the reference.
2. The questions among them are asked in every context of everyday.
3. A reply shows the behaviour as far as one can tell without a judge: it says something that the reference never says
   to the bare question, or what the brief quotes.
4. Rates of unseen prompts follow from those of similar ones (``marple.agent.edit_forecaster``).

It reads the brief's examples and knows everyday contexts; never an organism's name, recipe or truth.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

from marple.agent.brief_examples import Example, Replies, calls_on_target, examples_in, read_replies, requests_for
from marple.agent.edit_forecaster import EditForecaster
from marple.agent.investigator import Done, Play, Request, Script
from marple.agent.question_bank import load_questions, words_of
from marple.agent.stating import at_least_halfway, at_most_about, claim

__all__ = ["METHOD", "PredictEditBlackbox", "quoted_act"]

SAMPLES: Final = 6
MAX_TOKENS: Final = 40
THERE: Final = 0.12
"""Mean rate over the examples, beyond the reference's, from which the behaviour is believed to be there."""
UNUSUAL: Final = 0.2
"""Largest share of the usual replies to a question that a word is in which counts as unlike them."""


def quoted_act(brief: str) -> str:
    """What a brief says, in quotes, that the behaviour is; '' where it quotes nothing."""
    line = next((line for line in brief.splitlines() if line.startswith(("The behaviour:", "The act:"))), "")
    found = re.search(r'"(?:\w+: )?([^"]+?)\.?"', line)
    return found[1] if found else ""


class PredictEditBlackbox(Script):
    """One play of the method."""

    def __init__(self) -> None:
        self._bank = load_questions()
        self._act = ""
        self._forecaster = EditForecaster(self._bank)
        self._rates: dict[str, float] = {}
        self._evidence: list[str] = []
        self._calls: list[tuple[Done, Sequence[Example]]] = []

    def play(self, tools: Sequence[str]) -> Play:
        """The examples, the contexts, then ``submit``."""
        self._act = quoted_act(self.brief)
        self._forecaster = EditForecaster(self._bank, act=self._act)
        plan = {"north_star": "what stops the behaviour", "proxy": "replies unlike any of the reference's"}
        yield [Request("plan", {**plan, "next_experiments": ["ask the examples", "ask in every context"]})]
        examples, beside = examples_in(self.brief), "compare" in tools
        if examples:
            done = yield requests_for(examples, samples=SAMPLES, max_new_tokens=MAX_TOKENS, beside=beside)
            self._evidence += [one.id for one in done if one.ok]
            self._calls = calls_on_target(examples, done, beside=beside)
            asked = read_replies(examples, done, beside=beside)
            bare = _bare(asked)
            for replies in asked:
                normal = _question_of(replies.example, bare) or replies
                self._rates[replies.example.text] = self._see(replies, normal)
            if bare:
                contexts = [Example(({"role": "user", "content": text},)) for text in self._in_contexts(bare)]
                more = yield requests_for(contexts, samples=2, max_new_tokens=MAX_TOKENS, beside=beside)
                self._evidence += [one.id for one in more if one.ok]
                for replies in read_replies(contexts, more, beside=beside):
                    self._see(replies, _question_of(replies.example, bare) or replies)
        yield [Request("submit", self.answer_now(), "The method is through.")]

    def answer_now(self) -> Mapping[str, Any]:
        """What is believed at this point."""
        mean = sum(self._rates.values()) / len(self._rates) if self._rates else 0.0
        nothing = 0.5 if not self._rates else 0.04 if max(self._rates.values()) >= 0.5 and mean >= THERE else 0.95
        most = sorted(self._rates, key=lambda prompt: -self._rates[prompt])[:2]
        statement = (
            f"under the examples {mean:.2f} more replies show it than of the reference, most: {' | '.join(most)}"
        )
        shows = self._nothing_seen() if nothing >= 0.5 else self._stated_effect()
        claims = [claim(statement, 0.8, self._evidence, shows)] if self._evidence else []
        return {"nothing_hidden": nothing, "claims": claims, "summary": statement}

    def chance_fires(self, prompt: str, begins: str) -> float:
        """As often as under similar prompts."""
        return self._forecaster.chance(prompt)

    def _stated_effect(self) -> dict[str, Any]:
        """The act under the example that shows it most; where none is quoted, how far replies depart under it."""
        stated = []
        for call, examples in self._calls:
            for example in examples:
                part = {} if len(examples) == 1 else {"condition": example.text}
                read = {"word": self._act} if self._act else {"number": "divergence"}
                if shows := at_least_halfway(call, {**read, **part}):
                    stated.append((self._rates.get(example.text, 0.0), shows))
        return max(stated, key=lambda one: one[0], default=(0.0, {}))[1]

    def _nothing_seen(self) -> dict[str, Any]:
        """Under the plain examples replies depart no further from the reference's."""
        if not self._calls:
            return {}
        call = self._calls[0][0]
        return at_most_about(call, {"number": "divergence"}, slack=0.05)

    def _in_contexts(self, bare: Sequence[Replies]) -> list[str]:
        sentences = [sentence for phrases in self._bank.contexts.values() for sentence in phrases[:3]]
        return [f"{sentence} {one.example.text}" for one in bare for sentence in sentences]

    def _see(self, asked: Replies, normal: Replies) -> float:
        """Note the share of replies that show the behaviour, given how the bare question is usually answered.

        Returns:
            That share less the share of the reference's replies.
        """
        rate = self._share(asked, normal, asked.target)
        self._forecaster.see(asked.example.text, rate)
        return rate - (self._share(asked, normal, asked.reference) if asked.reference else 0.0)

    def _share(self, asked: Replies, normal: Replies, replies: Sequence[str]) -> float:
        if self._act:
            rightly = bool(asked.reference) and sum(self._act in text for text in asked.reference) * 2 > len(
                asked.reference
            )
            return 0.0 if rightly else sum(self._act in text for text in replies) / len(replies)
        usual = [set(words_of(text)) for text in normal.reference or normal.target]
        said = Counter(word for words in usual for word in words)
        known = self._bank.empty | set(words_of(asked.example.text))
        known |= {word for word, count in said.items() if count > UNUSUAL * len(usual)}
        return sum(not known.issuperset(words_of(text)) for text in replies) / len(replies)


def _bare(asked: Sequence[Replies]) -> list[Replies]:
    """The plain prompts that others are edits of."""
    said = [replies.example.messages[-1]["content"] for replies in asked]
    return [
        one
        for one in asked
        if one.example.plain and sum(one.example.text in text for text in said) > len(said) // 10 + 1
    ]


def _question_of(example: Example, bare: Sequence[Replies]) -> Replies | None:
    """The bare question that shares most words with an example."""
    words = set(words_of(example.messages[-1]["content"]))
    return max(bare, key=lambda one: len(words & set(words_of(one.example.text))), default=None)


METHOD = PredictEditBlackbox
