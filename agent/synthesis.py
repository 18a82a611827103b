"""Putting members' answers to the test without a language model: their claims' calls made again, then pooled by it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from marple.agent.effects import measure, stated_effect
from marple.agent.investigator import Done, Play, Request, Script
from marple.agent.members import Member
from marple.agent.pooling import pooled_answer
from marple.tasks.claims import Shows
from marple.tasks.kind import Kind

__all__ = ["MOST_CHECKS", "Synthesis"]

MOST_CHECKS = 8
"""Calls of the members' that are made again."""

_AT_ONCE = 4


@dataclass
class _Check:
    """A claim of one or more members that can be held against a call made again."""

    claim: Mapping[str, Any]
    tool: str
    arguments: Mapping[str, Any]
    members: list[int] = field(default_factory=list)
    call: str = ""
    held: bool | None = None


class Synthesis(Script):
    """Makes the calls again that members' claims rest on, those first that most is believed of, and pools the answers.

    A member counts the less the more of its claims did not come again: by (1 + held) / (1 + checked).
    """

    def __init__(self, kind: Kind, members: Sequence[Member]) -> None:
        self._kind = kind
        self._members = [member for member in members if member.answer is not None]
        self._checks: list[_Check] = []

    def play(self, tools: Sequence[str]) -> Play:
        """The checks, then ``submit``."""
        self._checks = self._wanted(tools)
        for at in range(0, len(self._checks), _AT_ONCE):
            checks = self._checks[at : at + _AT_ONCE]
            done = yield [Request(c.tool, c.arguments, f"Does it come again? {c.claim['statement']}") for c in checks]
            for check, result in zip(checks, done, strict=True):
                _judge(check, result)
        yield [Request("submit", self.answer_now(), "The members' claims are checked.")]

    def answer_now(self) -> Mapping[str, Any]:
        """The pool as it stands."""
        if not self._members:
            return self._kind.prior_answer()
        answers = [member.answer or {} for member in self._members]
        pooled = pooled_answer(answers, [self._weight(member.number) for member in self._members])
        held = [check for check in self._checks if check.held]
        tried = sum(check.held is not None for check in self._checks)
        summary = f"Pooled from {len(answers)} answers; {len(held)} of {tried} claims that were tried came again."
        return {**pooled, "claims": [self._claim(check) for check in held], "summary": summary}

    def chance_first(self, prompt: str, reply_a: str, reply_b: str) -> float:
        """A reply with the words of a claim that came again is rather the target's."""
        chance = 0.5
        for check in self._checks:
            word = (check.claim["shows"].get("word") or "").casefold()
            if check.held and word and check.claim["shows"].get("at_least"):
                shown = [word in reply.casefold() for reply in (reply_a, reply_b)]
                if shown[0] != shown[1]:
                    lean = 0.4 * check.claim["credence"]
                    chance = max(chance, 0.5 + lean) if shown[0] else min(chance, 0.5 - lean)
        return chance

    def _weight(self, number: int) -> float:
        of_it = [check for check in self._checks if number in check.members and check.held is not None]
        return (1 + sum(bool(check.held) for check in of_it)) / (1 + len(of_it))

    def _wanted(self, tools: Sequence[str]) -> list[_Check]:
        checks: dict[str, _Check] = {}
        for member in self._members:
            for claim in (member.answer or {}).get("claims", ()):
                tool, arguments = member.calls.get((claim.get("shows") or {}).get("call", ""), ("", {}))
                if tool in tools:
                    shows = {name: value for name, value in claim["shows"].items() if name != "call"}
                    key = f"{tool} {arguments} {shows}"
                    checks.setdefault(key, _Check(claim, tool, arguments)).members.append(member.number)
        believed = sorted(checks.values(), key=lambda check: -len(check.members) * check.claim["credence"])
        return believed[:MOST_CHECKS]

    def _claim(self, check: _Check) -> dict[str, Any]:
        share = len(check.members) / len(self._members)
        credence = round(check.claim["credence"] * (0.5 + 0.5 * share), 4)
        shows = {**check.claim["shows"], "call": check.call}
        return {"statement": check.claim["statement"], "credence": credence, "evidence": [check.call], "shows": shows}


def _judge(check: _Check, done: Done) -> None:
    """Whether the claim's effect appears in the call that was made again; unknown where it gave no result."""
    if not done.ok:
        return
    try:
        effect = stated_effect(Shows.model_validate({**check.claim["shows"], "call": done.id}))
    except ValidationError:
        return
    measured = measure(effect, done.data)
    check.call, check.held = done.id, None if measured.value is None else measured.appears
