"""Investigator ``prior``: answers from the brief alone and makes no call.

What it scores is what a case gives away before any experiment; it must be chance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marple.agent.investigator import Investigator, Play, Request, Script, ScriptInvestigator
from marple.agent.investigators import Entry, Options
from marple.tasks.kind import Kind

__all__ = ["INVESTIGATOR"]


class _Prior(Script):
    def __init__(self, kind: Kind) -> None:
        self._kind = kind

    def play(self, tools: Sequence[str]) -> Play:
        """Submit at once."""
        yield [Request("submit", self.answer_now(), "I answer from the brief alone.")]

    def answer_now(self) -> Mapping[str, Any]:
        """The kind's own prior."""
        return self._kind.prior_answer()


def _make(options: Options) -> Investigator:
    return ScriptInvestigator("prior", lambda: _Prior(options.kind), uses_target=False)


INVESTIGATOR = Entry("prior", "answers from the brief alone, no call: measures leakage", False, _make)
