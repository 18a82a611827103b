"""What is asked of the engine and what it answers, as data."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal, Protocol

from torch import Tensor

from marple.errors import ToolError
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.sites import Site

__all__ = ["Capture", "Encoder", "Output", "Request", "Sampling", "TopFeatures"]


class Encoder(Protocol):
    """A sparse autoencoder, as a capture uses it."""

    @property
    def fingerprint(self) -> str:
        """Digest of its weights and settings."""
        ...

    def top(self, hidden: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """The ``k`` strongest features of each row of ``(row, d_model)``: values and indices, each ``(row, k)``."""
        ...


@dataclass(frozen=True)
class Sampling:
    """How to generate."""

    max_new_tokens: int
    temperature: float = 1.0
    """0 takes the most probable token; the seed then does not matter."""
    top_p: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ToolError(
                f"max_new_tokens {self.max_new_tokens}, temperature {self.temperature} and top_p {self.top_p} must be "
                "at least 1, at least 0, and above 0 up to 1"
            )


@dataclass(frozen=True, eq=False)
class Capture:
    """Activations to return, sliced before they are stored."""

    site: Site
    positions: Literal["last", "all", "generated"] | tuple[int, ...] = "last"
    """``last``: the prompt's last token; ``all``: prompt and continuation; ``generated``: the continuation, or the
    sampled tokens (the last of which never enters the model); or positions, negative from the prompt's end."""
    mean: bool = False
    """Only the mean over the positions."""
    project: Tensor | None = None
    """``(direction, d_model)``: only the dot products with these."""
    encoder: Encoder | None = None
    """Only this autoencoder's strongest features."""
    top_k: int = 32
    before_edits: bool = False
    """What the site held before this request's own edits there; edits come first otherwise."""

    @property
    def _content(self) -> tuple[object, ...]:
        project = None if self.project is None else (tuple(self.project.shape), self.project.cpu().numpy().tobytes())
        encoder = None if self.encoder is None else (self.encoder.fingerprint, self.top_k)
        return (self.site, self.positions, self.mean, project, encoder, self.before_edits)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Capture) and self._content == other._content

    def __hash__(self) -> int:
        return hash((self.site, self.positions, self.mean, self.before_edits))


@dataclass(frozen=True)
class Request:
    """One row of work. Equal requests have equal answers."""

    prompt: tuple[int, ...]
    continuation: tuple[int, ...] = ()
    """Tokens to read behind the prompt as if they had been generated."""
    sampling: Sampling | None = None
    interventions: tuple[Intervention, ...] = ()
    """In the order in which they are made where several meet."""
    captures: tuple[Capture, ...] = ()
    logprobs: bool = False
    """Whether to return the log-probability (nats) of each token of the continuation or of the sample."""
    logits: bool = False
    """Whether to return the next-token logits behind the last token of prompt and continuation."""
    adapted: bool = True
    """False runs the base model where the target is a base with an adapter on one copy of the weights."""

    def __post_init__(self) -> None:
        if not self.prompt:
            raise ToolError("a prompt has no tokens: give at least one character of text")
        if self.continuation and self.sampling is not None:
            raise ToolError("a request has a continuation and is to be sampled from; put the tokens into the prompt")
        if self.logits and self.sampling is not None:
            raise ToolError("a request asks for next-token logits and for a sample; make two requests of it")

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        # A request is looked up several times, and its parts are long.
        return hash((self.prompt, self.continuation, self.sampling, self.interventions, self.captures, self.adapted))

    @property
    def tokens(self) -> tuple[int, ...]:
        """Everything that is read before anything is generated."""
        return self.prompt + self.continuation


@dataclass(frozen=True)
class TopFeatures:
    """What an encoder's capture holds: ``(position, k)`` each."""

    values: Tensor
    indices: Tensor


@dataclass(frozen=True)
class Output:
    """The answer to one request."""

    tokens: tuple[int, ...] = ()
    """What was sampled, without the stop token."""
    finish: Literal["stop", "length"] = "length"
    logprobs: tuple[float, ...] = ()
    """Of the continuation's or the sample's tokens; of the stop token too where one ended the sample."""
    captured: tuple[Tensor | TopFeatures, ...] = ()
    """One for each capture, float32 on the CPU: ``(position, d_model)``; ``(d_model,)`` with ``mean``, ``(position,
    direction)`` with ``project``; no position where nothing was generated."""
    logits: Tensor | None = None
    """``(vocab,)``, float32 on the CPU."""
