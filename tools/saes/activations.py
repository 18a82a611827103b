"""Activations of many texts with the tokens they belong to, as an SAE is trained and described on them."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from marple.errors import ToolError
from marple.tools.calls import report_progress

if TYPE_CHECKING:
    from marple.tools.engine.sites import Site
    from marple.tools.target.target import Target

__all__ = ["Activations", "collect_activations", "first_position"]

_PROMPTS = 128


@dataclass(frozen=True)
class Activations:
    """Activations at one site of several texts, one after the other."""

    values: Tensor
    """``(token, d_model)``, float32."""
    tokens: NDArray[np.int64]
    """``(token,)``, token ids."""
    starts: tuple[int, ...]
    """Where each text begins, and at the end the number of tokens."""

    def bounds_around(self, position: int) -> tuple[int, int]:
        """Where the text around a token begins and ends."""
        text = bisect.bisect_right(self.starts, position) - 1
        return self.starts[text], self.starts[text + 1]

    def __len__(self) -> int:
        return len(self.tokens)


def first_position(target: Target, prompt: Sequence[int]) -> int:
    """The first position whose activations are used: 1 behind a beginning-of-sequence token, else 0.

    Activations at such a token are outliers that SAEs are not trained on.
    """
    return int(len(prompt) > 1 and prompt[0] == target.tokenizer.bos_token_id)


def collect_activations(
    target: Target, prompts: Sequence[Sequence[int]], site: Site, *, most: int | None = None, what: str = "texts"
) -> Activations:
    """Run texts and keep the activations of every token but the beginning-of-sequence tokens.

    Args:
        target: the model.
        prompts: token ids of each text.
        site: where to read.
        most: stop behind the text that reaches this many tokens.
        what: the texts' name in reports of progress.

    Raises:
        ToolError: there is no text, or one does not fit into the context.
        CallCancelled: the call was cancelled.
    """
    values: list[Tensor] = []
    tokens: list[int] = []
    starts = [0]
    for first in range(0, len(prompts), _PROMPTS):
        part = prompts[first : first + _PROMPTS]
        for prompt, rows in zip(part, target.capture(part, [site], positions="all")[site], strict=True):
            begin = first_position(target, prompt)
            values.append(rows[begin:])
            tokens += prompt[begin:]
            starts.append(len(tokens))
            if most is not None and len(tokens) >= most:
                break
        report_progress(min(len(prompts), first + _PROMPTS), len(prompts), what)
        if most is not None and len(tokens) >= most:
            break
    if not tokens:
        raise ToolError("there are no texts to read activations from: give at least one with a token in it")
    return Activations(torch.cat(values), np.asarray(tokens, dtype=np.int64), tuple(starts))
