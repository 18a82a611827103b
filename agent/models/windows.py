"""How many tokens a model's window holds, where nobody says.

By the family that the model's name tells: the smallest window commonly published for it, from general knowledge and not
read off the providers' pages. A window that overflows earlier is learned during the run; ``--context-tokens`` says
otherwise.
"""

from __future__ import annotations

import re

__all__ = ["UNKNOWN_WINDOW", "context_window"]

UNKNOWN_WINDOW = 65_536
"""Tokens assumed of a model of no known family."""

_WINDOWS = (
    (r"claude", 200_000),
    (r"gpt-4\.1", 1_000_000),
    (r"gpt-4o|gpt-4-turbo", 128_000),
    (r"gpt-5|gpt-6", 272_000),
    (r"(^|/)o[134]\b", 200_000),
    (r"gemini", 1_000_000),
    (r"llama-?3\.[123]|llama-?4", 131_072),
    (r"qwen-?2\.5|qwen-?3|deepseek|glm-?[45]|kimi|mistral-large|gpt-oss", 131_072),
    (r"gemma-?3", 131_072),
)


def context_window(model: str) -> int:
    """Tokens that the window of a model holds, prompt and reply together.

    Args:
        model: its name, such as ``anthropic/<model>``.
    """
    name = model.casefold()
    return next((tokens for family, tokens in _WINDOWS if re.search(family, name)), UNKNOWN_WINDOW)
