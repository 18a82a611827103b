"""Edits of activations: where, what, when, and with which vector.

The vocabulary follows the specifications of EasySteer (Xu et al. 2025): phases are named by what the tokens are,
negative positions count from the end of the prompt, what is excluded always stays out.
"""

from __future__ import annotations

import functools
import hashlib
import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from marple.errors import ToolError
from marple.tools.engine.sites import Site

__all__ = ["Intervention", "Op", "Phase"]

Op = Literal["add", "norm_add", "ablate", "clamp", "replace"]
Phase = Literal["prompt", "generation"]


@dataclass(frozen=True, eq=False)
class Intervention:
    """One edit of the activations ``h`` at a site, where ``v`` is the vector and ``u`` the unit vector along it.

    ========== ===================================================================================
    add        ``h + scale * v``
    norm_add   ``h + scale * |h| * u``: as long, relative to the activation, wherever it is applied
    ablate     ``h - scale * (h . u) u``: projected out at scale 1
    clamp      ``h + (scale - h . u) u``: the projection on ``u`` is set to ``scale``
    replace    ``scale * v``
    ========== ===================================================================================

    Equality and hash are those of the content.
    """

    site: Site
    vector: Tensor
    """``(d_model,)``, or ``(len(positions), d_model)`` with one row for each position."""
    op: Op = "add"
    scale: float = 1.0
    phases: tuple[Phase, ...] = ("prompt", "generation")
    """``prompt`` tokens and those that were generated (or are scored as a continuation)."""
    positions: tuple[int, ...] | None = None
    """Positions in the prompt, negative from its end; None for all."""
    exclude_positions: tuple[int, ...] = ()
    tokens: tuple[int, ...] | None = None
    """Only at these token ids; None for all."""
    exclude_tokens: tuple[int, ...] = ()
    generation_window: tuple[int, int | None] | None = None
    """Which generated tokens, from start up to but not including stop; None for all."""

    def __post_init__(self) -> None:
        rows = None if self.vector.ndim == 1 else self.vector.shape[0]
        if self.vector.ndim not in (1, 2) or (rows is not None and rows != len(self.positions or ())):
            raise ToolError(
                f"the vector of an intervention has shape {tuple(self.vector.shape)}; it must be (d_model,), or have "
                "one row for each of the positions"
            )
        if not bool(torch.isfinite(self.vector).all()) or not math.isfinite(self.scale):
            raise ToolError("the vector or the scale of an intervention is NaN or infinite; give finite numbers")

    @functools.cached_property
    def fingerprint(self) -> str:
        """32 hexadecimal digits over everything the edit is made of, the vector's values included."""
        digest = hashlib.blake2b(digest_size=16)
        values = self.vector.detach().to("cpu", torch.float32).contiguous()
        digest.update(repr((self._shape, tuple(values.shape))).encode())
        digest.update(values.numpy().tobytes())
        return digest.hexdigest()

    @property
    def _shape(self) -> tuple[object, ...]:
        where = (self.phases, self.positions, self.exclude_positions, self.tokens, self.exclude_tokens)
        return (str(self.site), self.op, float(self.scale), where, self.generation_window)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Intervention) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @property
    def edits_prompt(self) -> bool:
        """Whether it can touch tokens of the prompt."""
        return "prompt" in self.phases

    @property
    def edits_generation(self) -> bool:
        """Whether it can touch generated tokens."""
        return "generation" in self.phases and self.positions is None

    def applies(self, position: int, token: int, prompt_length: int) -> bool:
        """Whether it edits the token at an absolute position."""
        if position < prompt_length:
            if not self.edits_prompt or not _listed(position, self.positions, prompt_length):
                return False
            if self.exclude_positions and _listed(position, self.exclude_positions, prompt_length):
                return False
        elif not self.edits_generation or not self._in_window(position - prompt_length):
            return False
        return (self.tokens is None or token in self.tokens) and token not in self.exclude_tokens

    @functools.cached_property
    def is_everywhere(self) -> bool:
        """Whether it edits every token of its phases, so that nothing need be looked up."""
        return self.positions is None and not self.exclude_positions and self.tokens is None and not self.exclude_tokens

    def _in_window(self, generated: int) -> bool:
        if self.generation_window is None:
            return True
        start, stop = self.generation_window
        return generated >= start and (stop is None or generated < stop)


def _listed(position: int, positions: tuple[int, ...] | None, prompt_length: int) -> bool:
    return positions is None or position in positions or position - prompt_length in positions
