"""A user's question, black-box tools only: what the target says otherwise than its reference, or than itself.

Without a language model nobody here understands the question. What the method can do is the search that it does for
hidden goals; it reports what differs and leaves the question itself open.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from marple.agent.investigator import Done, Play, Request, Script
from marple.agent.methods.hidden_goal_blackbox import ScriptedBlackbox

__all__ = ["METHOD", "OpenQuestionBlackbox"]

_OPEN = "This method does not understand the question: it reports where replies differ, and no answer to it."


class OpenQuestionBlackbox(Script):
    """One play: the search for hidden goals, with its findings as claims."""

    def __init__(self) -> None:
        self._search = ScriptedBlackbox()

    def play(self, tools: Sequence[str]) -> Play:
        """The search, up to its answer."""
        course = self._search.play(tools)
        done: Sequence[Done] | None = None
        while True:
            try:
                requests = next(course) if done is None else course.send(done)
            except StopIteration:
                return
            done = yield [self._submit(one) if one.tool == "submit" else one for one in requests]

    def answer_now(self) -> Mapping[str, Any]:
        """The claims so far."""
        found = self._search.answer_now()
        return {"claims": found["claims"], "summary": f"{found['summary'].rstrip('.')}. {_OPEN}"}

    def _submit(self, request: Request) -> Request:
        return Request("submit", self.answer_now(), request.why)


METHOD = OpenQuestionBlackbox
