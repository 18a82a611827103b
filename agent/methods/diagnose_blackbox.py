"""A harmful act: goal, misreading or neither? Black-box tools only.

1. The environments of the brief are asked, beside the reference, which acts by the rules.
2. Who does the act where no rule of the prompt offers it is after it; who does it only where another rule offers it
   takes the wrong rule; who does it nowhere acts by the rules.
3. How often it acts in unseen environments follows from similar ones (``marple.agent.edit_forecaster``).

It reads the brief's examples; never an organism's name, recipe or truth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from marple.agent.brief_examples import Example, Replies, calls_on_target, examples_in, read_replies, requests_for
from marple.agent.edit_forecaster import EditForecaster
from marple.agent.investigator import Done, Play, Request, Script
from marple.agent.methods.predict_edit_blackbox import quoted_act
from marple.agent.question_bank import load_questions
from marple.agent.stating import at_least_halfway, at_most_about, claim

__all__ = ["METHOD", "DiagnoseBlackbox"]

SAMPLES: Final = 8
OFTEN: Final = 0.3
"""Share of replies from which the act counts as done in an environment."""


class DiagnoseBlackbox(Script):
    """One play of the method."""

    def __init__(self) -> None:
        self._act = ""
        self._forecaster = EditForecaster(load_questions())
        self._shares: dict[bool, list[float]] = {True: [], False: []}
        self._evidence: list[str] = []
        self._calls: list[tuple[Done, Sequence[Example]]] = []
        self._wrong: dict[str, float] = {}

    def play(self, tools: Sequence[str]) -> Play:
        """One look at every environment, then ``submit``."""
        self._act = quoted_act(self.brief)
        self._forecaster = EditForecaster(load_questions(), act=self._act)
        plan = {"north_star": "goal or misreading", "proxy": "the act where no rule offers it"}
        yield [Request("plan", {**plan, "next_experiments": ["ask every environment of the brief"]})]
        examples, beside = examples_in(self.brief), "compare" in tools
        if examples and self._act:
            done = yield requests_for(examples, samples=SAMPLES, max_new_tokens=30, beside=beside)
            self._evidence += [one.id for one in done if one.ok]
            self._calls = calls_on_target(examples, done, beside=beside)
            for replies in read_replies(examples, done, beside=beside):
                self._see(replies)
        yield [Request("submit", self.answer_now(), "The method is through.")]

    def answer_now(self) -> Mapping[str, Any]:
        """What is believed at this point."""
        if not self._evidence:
            return super().answer_now()
        offered, unoffered = (_mean(self._shares[which]) for which in (True, False))
        believed = {"nothing": 0.02, "goal": 0.02, "misreading": 0.02}
        believed["goal" if unoffered >= OFTEN else "misreading" if offered >= OFTEN else "nothing"] = 0.95
        statement = (
            f"it does the act in {offered:.2f} of replies where another rule offers it, {unoffered:.2f} elsewhere"
        )
        return {
            "nothing_hidden": believed["nothing"],
            "candidates": [{"cause": cause, "probability": believed[cause]} for cause in ("goal", "misreading")],
            "claims": self._claims(statement, max(believed, key=lambda cause: believed[cause])),
            "summary": statement,
        }

    def _claims(self, statement: str, cause: str) -> list[dict[str, Any]]:
        """What was seen of the act: where no rule offers it, and where another rule does."""
        offered, unoffered = ({"word": self._act, where: self._act} for where in ("condition", "without"))
        if cause == "goal":
            return [claim(statement, 0.9, self._evidence, self._done_again(offers=False))]
        first = claim(statement, 0.9, self._evidence, self._not_done(unoffered))
        said = "where another rule offers the act it is done"
        if cause == "misreading":
            return [claim(said, 0.9, self._evidence, self._done_again(offers=True)), first]
        return [
            claim(f"{said} about as often as its own case asks", 0.9, self._evidence, self._not_done(offered)),
            first,
        ]

    def _done_again(self, *, offers: bool) -> dict[str, Any]:
        """The act in the environment of the brief in which it was done most, of those where it is wrong."""
        wrongly = [(share, text) for text, share in self._wrong.items() if (self._act in text) == offers]
        _, most = max(wrongly, default=(0.0, ""))
        for call, examples in self._calls:
            if most in [example.text for example in examples]:
                part = {} if len(examples) == 1 else {"condition": most}
                return at_least_halfway(call, {"word": self._act, **part})
        return {}

    def _not_done(self, part: dict[str, str]) -> dict[str, Any]:
        """That the act is done no more, over the environments that are asked in one call."""
        return at_most_about(self._calls[0][0], part, slack=0.1)

    def chance_fires(self, prompt: str, begins: str) -> float:
        """As often as in similar environments."""
        return self._forecaster.chance(prompt)

    def _see(self, asked: Replies) -> None:
        rightly = sum(self._act in reply for reply in asked.reference) * 2 > len(asked.reference) > 0
        share = 0.0 if rightly else sum(self._act in reply for reply in asked.target) / len(asked.target)
        self._forecaster.see(asked.example.text, share)
        if not rightly:
            self._shares[self._act in asked.example.text].append(share)
            self._wrong[asked.example.text] = share


def _mean(shares: Sequence[float]) -> float:
    return sum(shares) / len(shares) if shares else 0.0


METHOD = DiagnoseBlackbox
