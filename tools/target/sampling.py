"""Choose the next token of each row of a batch, so that a row's draw depends on its own seed alone."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["choose_tokens", "uniform_draws"]


def uniform_draws(seeds: Sequence[int], steps: int) -> Tensor:
    """Uniform numbers in [0, 1), shape ``(row, step)``, each row from its own generator on the CPU.

    A row's numbers are the same on every device and in every batch.
    """
    rows = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed % 2**63)
        rows.append(torch.rand(steps, generator=generator, dtype=torch.float64))
    return torch.stack(rows) if rows else torch.empty(0, steps, dtype=torch.float64)


def choose_tokens(logits: Tensor, draws: Tensor, *, temperature: float | Tensor, top_p: float | Tensor = 1.0) -> Tensor:
    """The next token ids, shape ``(row,)``, by inverting the cumulative distribution at each row's draw.

    Args:
        logits: ``(row, vocabulary)``.
        draws: uniform numbers in [0, 1), ``(row,)``.
        temperature: one for all rows, or ``(row,)``; 0 takes the most probable token.
        top_p: keep the smallest set of most probable tokens with at least this mass (nucleus sampling,
            Holtzman et al. 2020); 1 keeps all; one for all rows, or ``(row,)``.
    """
    rows = logits.shape[0]
    heat = torch.as_tensor(temperature, dtype=torch.float64).cpu().expand(rows)
    mass = torch.as_tensor(top_p, dtype=torch.float64).cpu().expand(rows)
    chosen = logits.argmax(dim=-1)
    for warm, kept in {(float(t), float(p)) for t, p in zip(heat, mass, strict=True) if t > 0}:
        mine = ((heat == warm) & (mass == kept)).nonzero().squeeze(-1).to(logits.device)
        if len(mine) == rows:
            return _draw(logits, draws, warm, kept)
        chosen[mine] = _draw(logits[mine], draws.to(logits.device)[mine], warm, kept)
    return chosen


def _draw(logits: Tensor, draws: Tensor, temperature: float, top_p: float) -> Tensor:
    # Double precision, so that the order in which a long tail is summed cannot move a draw to another token.
    precise = torch.float32 if logits.device.type == "mps" else torch.float64
    probabilities = torch.softmax(logits.to(precise) / temperature, dim=-1)
    if top_p < 1.0:
        probabilities = _nucleus(probabilities, top_p)
    cumulative = probabilities.cumsum(dim=-1)
    points = draws.to(cumulative).unsqueeze(-1) * cumulative[:, -1:]
    found = torch.searchsorted(cumulative, points, right=True).squeeze(-1)
    return found.clamp(max=logits.shape[-1] - 1)


def _nucleus(probabilities: Tensor, top_p: float) -> Tensor:
    ordered, index = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1) - ordered
    ordered = ordered.masked_fill(before >= top_p, 0.0)
    return torch.zeros_like(probabilities).scatter(-1, index, ordered)
