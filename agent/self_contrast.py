"""The scripted method where there is no reference: the target's replies in a context against its own without it.

It sees what a context sets off. What the target always does it cannot see, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from marple.agent.investigator import Done, Play, Request, Script
from marple.agent.leads import Lead, Rates, best_contrast, chance_by_lead, rates_of_sets
from marple.agent.question_bank import NO_CONTEXT, load_questions
from marple.agent.stating import at_most_about, claim, shown_by

__all__ = ["SelfContrast"]

BLIND = (
    "Without a reference (--reference) this method sees only what a context sets off, not what the target always does."
)
"""What is said whenever nothing was found."""

_TOPICS = ("products", "travel", "avoid")
_PROMPTS = 18
_SAMPLES = 2
_MAX_TOKENS = 40


class SelfContrast(Script):
    """One play: every context against none, topic by topic, then the strongest lead on fresh prompts."""

    def __init__(self) -> None:
        self._bank = load_questions()
        self._lead: Lead | None = None
        self._topic = ""
        self._rates: Rates | None = None
        self._widest: Done | None = None
        self._evidence: list[str] = []
        self._nothing = 0.5

    def play(self, tools: Sequence[str]) -> Play:
        """Search all contexts, one topic a turn; confirm in the last."""
        for topic in _TOPICS:
            cells = [(topic, context) for context in self._bank.contexts]
            done = yield [self._contrast(cell, f"What changes about {topic} for {cell[1]}?") for cell in cells]
            self._evidence += [one.id for one in done if one.ok]
            self._keep_strongest(cells, done)
        if self._lead is None:
            self._nothing = 0.6
        else:
            why = f"Does {self._lead.word} come again for {self._lead.condition} on fresh prompts?"
            confirmed = yield [self._contrast((self._topic, self._lead.condition), why, fresh=True)]
            self._conclude(confirmed[0])
        yield [Request("submit", self.answer_now(), "The method is through.")]

    def answer_now(self) -> Mapping[str, Any]:
        """What is believed at this point."""
        lead, rates = self._lead, self._rates
        if lead is None or rates is None:
            widest = self._widest
            shows = {} if widest is None else at_most_about(widest, {"number": "gap"}, slack=0.15)
            statement = "no context of those tried sets off a content word"
            claims = [claim(statement, 0.8, self._evidence, shows)] if self._evidence else []
            return {"nothing_hidden": self._nothing, "candidates": [], "claims": claims, "summary": BLIND}
        statement = (
            f"for {lead.condition} the target {lead.behaviour} {lead.word}: on fresh prompts in {rates.target} of "
            f"{rates.target_n} replies, against {rates.reference} of {rates.reference_n} without that context"
        )
        slots = {"behaviour": lead.behaviour, "subject": lead.word, "trigger": lead.condition}
        candidate = {**slots, "probability": round(0.9 * (1 - self._nothing), 4)}
        halfway = round((rates.target / rates.target_n + rates.reference / rates.reference_n) / 2, 3)
        effect = {"word": lead.word, "at_least": max(0.05, halfway), "condition": "first"}
        shows = {"call": self._evidence[-1], **effect}
        return {
            "nothing_hidden": self._nothing,
            "candidates": [candidate],
            "claims": [claim(statement, 1 - self._nothing, self._evidence[-1:], shows)],
            "summary": f"{statement}. {BLIND}",
        }

    def chance_first(self, prompt: str, reply_a: str, reply_b: str) -> float:
        """The lead's word tells replies apart where its context is met, as far as the lead is believed."""
        lead, belief = self._lead, 1 - self._nothing
        if lead is None:
            return 0.5
        replies = (reply_a, reply_b)
        return chance_by_lead(lead, lead.condition, belief, self._bank, prompt=prompt, replies=replies)

    def _contrast(self, cell: tuple[str, str], why: str, *, fresh: bool = False) -> Request:
        topic, context = cell
        sets = {
            name: self._bank.prompts(topic, where, _PROMPTS, fresh=fresh)
            for name, where in (("first", context), ("second", NO_CONTEXT))
        }
        return Request("contrast", {**sets, "samples": _SAMPLES, "max_new_tokens": _MAX_TOKENS}, why)

    def _keep_strongest(self, cells: Sequence[tuple[str, str]], done: Sequence[Done]) -> None:
        for (topic, context), one in zip(cells, done, strict=True):
            lead = best_contrast(one.data, context, self._bank) if one.ok else None
            if one.ok and (self._widest is None or _gap(one) > _gap(self._widest)):
                self._widest = one
            if lead is not None and (self._lead is None or lead.z > self._lead.z):
                self._lead, self._topic = lead, topic

    def _conclude(self, done: Done) -> None:
        """As much belief as the gap between the context and none supports on fresh prompts."""
        assert self._lead is not None
        if not done.ok:
            return
        self._evidence.append(done.id)
        self._rates = rates_of_sets(done.data, self._lead, self._bank)
        strength = max(-30.0, min(self._rates.z - 4, 30 * (self._rates.gap - 0.1)))
        self._nothing = round(0.1 + 0.6 / (1 + math.exp(strength)), 4)


def _gap(done: Done) -> float:
    return shown_by(done, {"number": "gap"}) or 0.0
