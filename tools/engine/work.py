"""What an engine has done, counted: the figures that say whether work was shared and left out."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Work"]


@dataclass
class Work:
    """Counts since the engine was made."""

    forwards: int = 0
    """Passes through the model."""
    prompt_tokens: int = 0
    """Tokens of prompts and continuations that were computed."""
    generated_tokens: int = 0
    """Tokens computed one at a time while generating."""
    layer_tokens: int = 0
    """Tokens times layers they went through."""
    head_rows: int = 0
    """Positions whose logits were computed."""
    prefix_tokens_reused: int = 0
    """Tokens that were known from a prefix."""
    cache_hits: int = 0
    """Requests answered from the result cache, or along with an equal one."""
