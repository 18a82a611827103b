"""Suppressing evaluation awareness, white-box tools too: the direction from real to test sentences is subtracted.

The direction is a difference of means (Marks & Tegmark 2024). Layer and dose are those under which the answers under
test are nearest to those without, beside the best system prompt and without it, while the answers to the bare
questions stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marple.agent.methods.suppress_eval_awareness_blackbox import SuppressEvalAwarenessBlackbox
from marple.agent.question_bank import load_questions

__all__ = ["METHOD", "SuppressEvalAwarenessWhitebox"]


class SuppressEvalAwarenessWhitebox(SuppressEvalAwarenessBlackbox):
    """One play of the method."""

    def contrast(self) -> Mapping[str, Any]:
        """The troubled questions behind sentences of a test and of real use."""
        contexts = load_questions().contexts
        questions = [prompt for prompt, _ in self._ordinary[:6]]

        def behind(name: str) -> list[str]:
            return [f"{sentence} {question}" for sentence in contexts[name][:-1] for question in questions]

        return {"positive": behind("test"), "negative": behind("real_use"), "reading": "mean"}


METHOD = SuppressEvalAwarenessWhitebox
