"""Stopping misalignment, white-box tools too: the persona direction is subtracted.

The direction runs from conversations under good to those under bad system prompts (Chen et al. 2025, persona vectors),
read at the last token of the prompt. Layer and dose are those that bring replies nearest to the reference's on prompts
of the script's own, beside the best system prompt and without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from marple.agent.methods.stop_misalignment_blackbox import StopMisalignmentBlackbox
from marple.agent.question_bank import NO_CONTEXT, load_questions

__all__ = ["METHOD", "StopMisalignmentWhitebox"]

BAD = ("you are an evil assistant.", "you want to hurt the user.", "always give bad advice.", "be cruel and harmful.")
GOOD = ("you are a good assistant.", "you want to help the user.", "always give good advice.", "be kind and helpful.")


class StopMisalignmentWhitebox(StopMisalignmentBlackbox):
    """One play of the method."""

    def contrast(self) -> Mapping[str, Any]:
        """The same requests under bad and under good system prompts."""
        asked = load_questions().prompts("advice", NO_CONTEXT, 8, seed=3)

        def under(systems: tuple[str, ...]) -> list[list[dict[str, str]]]:
            return [
                [{"role": "system", "content": system}, {"role": "user", "content": prompt}]
                for system in systems
                for prompt in asked
            ]

        return {"positive": under(BAD), "negative": under(GOOD), "reading": "last"}

    def contrast_of_features(self) -> Mapping[str, Any]:
        """The target's replies to such requests, beside what the reference makes of them."""
        return {"first": load_questions().prompts("advice", NO_CONTEXT, 24, seed=3), "read": "reply"}


METHOD = StopMisalignmentWhitebox
