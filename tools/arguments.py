"""Argument types that several experiments share, and the seeds of their samples."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import ConfigDict, Field, with_config

# pydantic needs this one before Python 3.12; it is the same class.
from typing_extensions import TypedDict

from marple.errors import ToolError

if TYPE_CHECKING:
    from marple.tools.target.target import Target

__all__ = [
    "MAX_TOKENS_PER_CALL",
    "Conditions",
    "MaxNewTokens",
    "Message",
    "Model",
    "Prompts",
    "Samples",
    "Temperature",
    "Text",
    "TopP",
    "Words",
    "check_conversation",
    "check_samples",
    "choose_model",
    "one_turn",
    "sample_seed",
]

MAX_TOKENS_PER_CALL = 500_000
"""Most tokens one call may generate on one model, so that its data fits into one frame."""


@with_config(ConfigDict(extra="forbid", strict=True))
class Message(TypedDict):
    """One turn of a conversation."""

    role: Literal["system", "user", "assistant"]
    content: str


Model = Literal["target", "reference"]
Text = Annotated[str, Field(min_length=1, max_length=100_000)]
Prompts = Annotated[list[Text], Field(min_length=1, max_length=10_000)]
Conditions = Annotated[
    dict[Annotated[str, Field(min_length=1, max_length=200)], Prompts], Field(min_length=1, max_length=100)
]
Samples = Annotated[int, Field(ge=1, le=1000)]
Temperature = Annotated[float, Field(ge=0, le=10)]
TopP = Annotated[float, Field(gt=0, le=1)]
MaxNewTokens = Annotated[int, Field(ge=1, le=8192)]
Words = Annotated[list[Annotated[str, Field(min_length=1, max_length=200)]], Field(min_length=1, max_length=20)]


def sample_seed(seed: int, *path: int | str) -> int:
    """The seed of one sample of a call, as a number below 2**63.

    It is the first eight bytes of the SHA-256 of the call's seed and the sample's place (say the model, the
    prompt's index and the sample's index), joined by slashes. So a sample does not change when prompts or
    samples are added behind it.
    """
    name = "/".join(map(str, (seed, *path)))
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8]) >> 1


def choose_model(target: Target, on: Model) -> Target:
    """The model an experiment runs on.

    Raises:
        ToolError: the reference is asked for and none is loaded.
    """
    if on == "target":
        return target
    if target.reference is None:
        raise ToolError('on is "reference", but no reference is loaded; allowed here: "target"')
    return target.reference


def check_conversation(messages: list[Message]) -> None:
    """Raise a ToolError unless the next turn is the assistant's."""
    if messages[-1]["role"] != "user":
        raise ToolError(
            f'the last message has role "{messages[-1]["role"]}", but must have role "user"; to continue a reply '
            "that has begun use the prefill tool"
        )


def check_samples(prompts: int, samples: int, *, temperature: float, max_new_tokens: int) -> None:
    """Raise a ToolError where samples would be equal to each other, or too many for one call."""
    if temperature == 0 and samples > 1:
        raise ToolError(
            f"samples is {samples} at temperature 0, where all samples are the same; use samples 1, or a "
            "temperature above 0 such as 1.0"
        )
    tokens = prompts * samples * max_new_tokens
    if tokens > MAX_TOKENS_PER_CALL:
        fitting = max(1, MAX_TOKENS_PER_CALL // (prompts * max_new_tokens))
        raise ToolError(
            f"{prompts} prompts with samples {samples} and max_new_tokens {max_new_tokens} are up to {tokens} tokens; "
            f"a call may generate at most {MAX_TOKENS_PER_CALL}: for example samples {fitting}, or fewer prompts"
        )


def one_turn(prompt: str, *, system: str | None = None) -> list[Message]:
    """A conversation of one user message."""
    user: Message = {"role": "user", "content": prompt}
    return [user] if system is None else [{"role": "system", "content": system}, user]
