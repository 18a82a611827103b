"""Activation patching: put activations of one run into another and see what the answer becomes.

Vig et al. 2020 and Meng et al. 2022 (causal tracing); directions, metric and controls after Heimersheim & Nanda 2024.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from marple.errors import ToolError
from marple.tools.calls import report_progress
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.sites import Site, SiteName
from marple.tools.lenses import token_text
from marple.tools.prompt_tokens import continuation_tokens
from marple.tools.target.target import Target

__all__ = [
    "Contrast",
    "Direction",
    "PatchGrid",
    "aligned_positions",
    "answer_tokens",
    "fillings",
    "logit_differences",
    "pair_label",
    "patch_grid",
]

Direction = Literal["denoising", "noising"]
_LEAST_GAP = 1e-4
_LEAST_EFFECT = 0.02
_NEEDED = 0.5
_LOGITS_AT_ONCE = 60_000_000


@dataclass(frozen=True)
class Contrast:
    """Two prompts with different answers."""

    clean: tuple[int, ...]
    corrupted: tuple[int, ...]
    answer: int
    """Token that the clean prompt leads to."""
    other: int
    """Token that the corrupted prompt leads to."""

    def prompts(self, direction: Direction) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The prompt that is run, and the one whose activations are put in."""
        return (self.corrupted, self.clean) if direction == "denoising" else (self.clean, self.corrupted)


@dataclass(frozen=True)
class PatchGrid:
    """Every cell patched on its own; effects on a scale where 0 is the corrupted run and 1 the clean one.

    Shapes: ``metric`` is ``(layer, position)``; ``noise`` and ``unrelated`` are the same cells with a perturbation of
    the same size in a random direction, and with the activation of an unrelated prompt.
    """

    direction: Direction
    metric: Tensor
    noise: Tensor
    unrelated: Tensor

    @property
    def untouched(self) -> float:
        """What the metric is without a patch."""
        return 0.0 if self.direction == "denoising" else 1.0

    def control_range(self) -> Tensor:
        """Least and largest control at each position over all layers and the untouched run, ``(position, 2)``."""
        both = torch.cat([self.noise, self.unrelated, torch.full_like(self.noise[:1], self.untouched)])
        return torch.stack([both.min(0).values, both.max(0).values], -1)

    def beyond_controls(self) -> Tensor:
        """Cells that go further towards the other run than any control at their position, ``(layer, position)``."""
        low, high = self.control_range().T
        towards = self.metric - high if self.direction == "denoising" else low - self.metric
        return torch.gt(towards, _LEAST_EFFECT)

    def needed(self) -> Tensor:
        """Cells whose replacement takes at least half of the clean run's lead away, ``(layer, position)``.

        Any replacement of what carries the answer does so: a control that does the same leaves open whether the cell
        carries what the prompts differ in. Only denoising tells. Nothing is needed where clean is put in.
        """
        if self.direction == "denoising":
            return torch.zeros_like(self.metric, dtype=torch.bool)
        return torch.le(self.metric, _NEEDED)

    def replaced_alike(self) -> Tensor:
        """Needed cells where a control in the same cell takes at least as much away, but for 0.02 of the scale."""
        least = torch.minimum(self.noise, self.unrelated)
        return self.needed() & torch.le(least, self.metric + _LEAST_EFFECT)


def answer_tokens(target: Target, answer: str, other: str) -> tuple[int, int]:
    """The first tokens of two answers.

    Raises:
        ToolError: they are the same token.
    """
    tokens = tuple(continuation_tokens(target, one)[0] for one in (answer, other))
    if tokens[0] == tokens[1]:
        raise ToolError(
            f"answer {target.quote(answer)} and other {target.quote(other)} begin with the same token "
            f"{target.quote(token_text(target, tokens[0]))}: give answers that differ there, or move what they share "
            "into prefill"
        )
    return tokens[0], tokens[1]


def pair_label(target: Target, clean: Sequence[int], corrupted: Sequence[int], position: int) -> str:
    """The token at a position, both where the prompts differ."""
    mine, other = (token_text(target, ids[position]) for ids in (clean, corrupted))
    return mine if mine == other else f"{mine} / {other}"


def aligned_positions(
    target: Target, clean: Sequence[int], corrupted: Sequence[int], positions: Sequence[int] | None
) -> list[int]:
    """Positions to patch, counted from the end: those given, or all from the first token on that differs.

    Raises:
        ToolError: the prompts are equal, or differ in length and positions are not all counted from the end, or a
            position is out of range.
    """
    if tuple(clean) == tuple(corrupted):
        raise ToolError("clean and corrupted are the same tokens: change the part whose effect you want to find")
    if len(clean) != len(corrupted) and (positions is None or any(position >= 0 for position in positions)):
        shown = [" ".join(target.quote(token_text(target, one), limit=16) for one in ids) for ids in (clean, corrupted)]
        raise ToolError(
            f"clean has {len(clean)} tokens and corrupted {len(corrupted)}, so positions do not correspond; use words "
            'with equally many tokens, or give positions counted from the end, such as "positions": [-3, -2, -1]. '
            f"clean: {shown[0][:1500]}; corrupted: {shown[1][:1500]}"
        )
    shortest = min(len(clean), len(corrupted))
    if positions is None:
        first = next(at for at, (one, other) in enumerate(zip(clean, corrupted, strict=True)) if one != other)
        return list(range(first - shortest, 0))
    for position in positions:
        if not -shortest <= position < shortest:
            raise ToolError(
                f"position {position} is outside of the prompts, which have {shortest} tokens: allowed are 0 to "
                f"{shortest - 1}, or -1 (the last) to -{shortest}; for example -1"
            )
    return sorted({position - shortest if position >= 0 else position for position in positions})


def logit_differences(
    target: Target, prompts: Sequence[Sequence[int]], edits: Sequence[Sequence[Intervention]], contrast: Contrast
) -> Tensor:
    """Logit of the answer minus logit of the other behind each prompt with its edits, ``(prompt,)``.

    All go to the engine together, but for so many that their logits would not fit into memory.
    """
    at_once = max(1, _LOGITS_AT_ONCE // int(target.model.config.get_text_config().vocab_size))
    found = []
    for start in range(0, len(prompts), at_once):
        report_progress(start, len(prompts), "patches")
        part = slice(start, start + at_once)
        logits = target.next_logits(prompts[part], interventions=edits[part])
        found.append(logits[:, contrast.answer] - logits[:, contrast.other])
    return torch.cat(found)


def patch_grid(
    target: Target,
    contrast: Contrast,
    *,
    site: SiteName,
    layers: Sequence[int],
    positions: Sequence[int],
    directions: Sequence[Direction],
    unrelated: Sequence[int],
    seed: int,
) -> tuple[list[PatchGrid], tuple[float, float], int]:
    """Patch each layer and position on its own, with a noise and an unrelated patch beside each.

    Args:
        target: the model.
        contrast: the prompts and answers.
        site: what is replaced.
        layers: from 0.
        positions: from the end (negative).
        directions: which runs are patched.
        unrelated: tokens of a prompt that has nothing to do with it.
        seed: of the noise.

    Returns:
        One grid for each direction; the logit differences of the clean and the corrupted run; tokens read.

    Raises:
        ToolError: the two runs do not differ in the answer.
    """
    sites = [Site(layer, site) for layer in layers]
    sources = [contrast.clean, contrast.corrupted, _stretched(unrelated, -min(positions))]
    found = target.capture(sources, sites, positions=list(positions))
    states = {source: torch.stack([found[one][at] for one in sites]) for at, source in enumerate(_SOURCES)}
    generator = torch.Generator().manual_seed(seed % 2**63)
    prompts: list[Sequence[int]] = [contrast.clean, contrast.corrupted]
    edits: list[list[Intervention]] = [[], []]
    for direction in directions:
        base, _ = contrast.prompts(direction)
        for values in fillings(states, direction, generator):
            for row, one in enumerate(sites):
                for column, position in enumerate(positions):
                    vector = values[row, column]
                    edits.append([Intervention(one, vector, op="replace", phases=("prompt",), positions=(position,))])
                    prompts.append(base)
    differences = logit_differences(target, prompts, edits, contrast)
    clean, corrupted = float(differences[0]), float(differences[1])
    if abs(clean - corrupted) < _LEAST_GAP:
        raise ToolError(
            f"the logit difference of the two answers is {clean:.3f} after clean and {corrupted:.3f} after corrupted: "
            "the prompts must lead to different answers; change them, or answer and other"
        )
    scaled = (differences[2:] - corrupted) / (clean - corrupted)
    shape = (len(directions), 3, len(layers), len(positions))
    grids = [PatchGrid(one, *scaled.reshape(shape)[at]) for at, one in enumerate(directions)]
    return grids, (clean, corrupted), sum(map(len, prompts)) + sum(map(len, sources))


_SOURCES = ("clean", "corrupted", "unrelated")


def fillings(states: dict[str, Tensor], direction: Direction, generator: torch.Generator) -> list[Tensor]:
    """What is put in, ``(layer, position, d_model)``: the other run's, noise of its distance, the unrelated's."""
    base, source = ("corrupted", "clean") if direction == "denoising" else ("clean", "corrupted")
    change = states[source] - states[base]
    noise = torch.randn(change.shape, generator=generator)
    noise = noise / noise.norm(dim=-1, keepdim=True) * change.norm(dim=-1, keepdim=True)
    return [states[source], states[base] + noise, states["unrelated"]]


def _stretched(ids: Sequence[int], least: int) -> list[int]:
    """The ids, begun over and over until there are enough."""
    return [ids[at % len(ids)] for at in range(max(least, len(ids)))]
