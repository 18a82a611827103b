"""Requests on their way: what a caller waits for, and the state of each row of work."""

from __future__ import annotations

import functools
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from marple.tools.calls import Call
from marple.tools.engine.edits import RowWindow
from marple.tools.engine.prefixes import Prefix, edit_key, first_edited
from marple.tools.engine.requests import Capture, Output, Request, TopFeatures
from marple.tools.target.sampling import uniform_draws

__all__ = ["Job", "Ticket"]


@dataclass(eq=False)
class Ticket:
    """One caller's requests."""

    outputs: list[Output | None]
    call: Call | None
    left: int = 0
    error: Exception | None = None
    cancelled: bool = False

    @property
    def finished(self) -> bool:
        """Whether there is nothing more to wait for."""
        return self.left == 0 or self.error is not None or self.cancelled

    def fail(self, error: Exception) -> None:
        """End it with an error."""
        self.error = self.error or error

    def note(self, text: str) -> None:
        """Leave a note for the reader of the call's result."""
        if self.call is not None and text not in self.call.notes:
            self.call.notes.append(text)


@dataclass(eq=False)
class Job:
    """One request under way; equal requests of a ticket share one."""

    request: Request
    ticket: Ticket
    places: list[int]
    """Which of the ticket's outputs it fills."""
    arrival: int = 0
    prefix: tuple[Prefix, int] | None = None
    looked: bool = False
    """Whether the prefix cache was asked."""
    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    chunks: list[list[Tensor]] = field(default_factory=list)
    """For each capture what was read so far, ``(token, d_model)`` each."""
    logits: Tensor | None = None
    finish: Literal["stop", "length"] = "length"
    answered: bool = False
    """Whether its answer was handed over."""

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """Forget what was done."""
        self.tokens, self.logprobs, self.logits = [], [], None
        self.chunks = [[] for _ in self.request.captures]

    @property
    def reads_prompt(self) -> bool:
        """Whether activations of the prompt are wanted, so that it must be read for this job alone."""
        return any(capture.positions != "generated" for capture in self.request.captures)

    @property
    def start(self) -> int:
        """How many tokens are known from a prefix."""
        return self.prefix[1] if self.prefix else 0

    @property
    def remaining(self) -> int:
        """Tokens of prompt and continuation still to be read."""
        return len(self.request.tokens) - self.start

    def remaining_of(self) -> int:
        """``remaining``, as a function."""
        return self.remaining

    @property
    def final_length(self) -> int:
        """Most positions it may come to use."""
        sampling = self.request.sampling
        return len(self.request.tokens) + (sampling.max_new_tokens if sampling else 0)

    @functools.cached_property
    def key(self) -> Hashable:
        """The prefix cache's key for its prompt."""
        return edit_key(self.request)

    @functools.cached_property
    def clean_limit(self) -> int:
        """How many tokens of the prompt no edit touches."""
        return first_edited(self.request)

    @functools.cached_property
    def limit(self) -> int:
        """How many tokens may come from a prefix: nothing that is asked for lies before."""
        request = self.request
        limit = len(request.prompt)
        if request.logprobs or request.sampling is not None or request.logits or not request.continuation:
            limit -= 1
        for capture in request.captures:
            limit = min([limit, *self.positions(capture)])
        return limit

    def positions(self, capture: Capture) -> Sequence[int]:
        """Absolute positions of prompt and continuation that a capture wants, in its order."""
        length = len(self.request.prompt)
        if capture.positions == "last":
            return (length - 1,)
        if capture.positions == "all":
            return range(len(self.request.tokens))
        if capture.positions == "generated":
            return range(length, len(self.request.tokens))
        return tuple(at if at >= 0 else at + length for at in capture.positions)

    @functools.cached_property
    def head_positions(self) -> Sequence[int]:
        """Absolute positions behind which next-token logits are needed."""
        request = self.request
        end = len(request.tokens)
        first = len(request.prompt) - 1 if request.logprobs and request.continuation else end
        last = end if request.logits or request.sampling is not None else end - 1
        return range(min(first, end - 1), last) if first < end else range(end - 1, last)

    @property
    def needs_end_only(self) -> bool:
        """Whether logits are needed behind the last token at most."""
        end = len(self.request.tokens) - 1
        return min(self.head_positions, default=end) == end

    @functools.cached_property
    def stop_after(self) -> int | None:
        """Boundary of the residual stream behind which it needs nothing; None when it needs logits."""
        if len(self.head_positions) or self.request.sampling is not None:
            return None
        return max((capture.site.depth for capture in self.request.captures), default=0)

    @functools.cached_property
    def draws(self) -> Tensor:
        """Uniform numbers, one for each token to come."""
        sampling = self.request.sampling
        assert sampling is not None
        return uniform_draws([sampling.seed], sampling.max_new_tokens)[0]

    def window(self, start: int, tokens: tuple[int, ...]) -> RowWindow:
        """Its tokens in a pass, for the edits."""
        return RowWindow(self.request.interventions, len(self.request.prompt), start, tokens)

    def _in_order(self, capture: Capture, hidden: Tensor) -> Tensor:
        """What was read from left to right, in the order in which it was asked for."""
        if isinstance(capture.positions, str):
            return hidden
        asked = torch.tensor(self.positions(capture))
        return hidden[asked.argsort(stable=True).argsort().to(hidden.device)]

    def output(self, d_model: int) -> Output:
        """The answer, once everything was read."""
        captured = tuple(
            _slice(capture, self._in_order(capture, torch.cat(chunks) if chunks else torch.zeros(0, d_model)))
            for capture, chunks in zip(self.request.captures, self.chunks, strict=True)
        )
        return Output(tuple(self.tokens), self.finish, tuple(self.logprobs), captured, self.logits)


def _slice(capture: Capture, hidden: Tensor) -> Tensor | TopFeatures:
    wide = hidden.float()
    if not len(wide):
        width = wide.shape[1] if capture.project is None else capture.project.shape[0]
        empty = torch.zeros(0, width if capture.encoder is None else capture.top_k)
        return empty if capture.encoder is None else TopFeatures(empty, empty.long())
    if capture.encoder is not None:
        values, indices = capture.encoder.top(wide, capture.top_k)
        return TopFeatures(values.cpu(), indices.cpu())
    if capture.project is not None:
        wide = wide @ capture.project.to(wide).T
    if capture.mean:
        wide = wide.mean(dim=0)
    return wide.cpu()
