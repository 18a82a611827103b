"""How much of the activations an SAE explains, and what the model loses when it must live on the reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from marple.tools.engine.interventions import Intervention
from marple.tools.saes.activations import first_position
from marple.tools.saes.sae import SAE

if TYPE_CHECKING:
    from marple.tools.target.target import Target

__all__ = ["LossRecovered", "Reconstruction", "loss_recovered", "reconstruction"]

_ROWS = 2048


@dataclass(frozen=True)
class Reconstruction:
    """How an SAE explains a set of tokens."""

    fvu: float
    """Fraction of variance unexplained: 0 is perfect, 1 no better than the tokens' mean."""
    l0: float
    """Mean number of active features per token."""
    dead: int
    """Features active on none of the tokens."""
    tokens: int

    @property
    def variance_explained(self) -> float:
        """One minus the FVU."""
        return 1 - self.fvu


@dataclass(frozen=True)
class LossRecovered:
    """Next-token cross-entropy (nats), of one token per text, each under another input to the rest of the model."""

    clean: float
    spliced: float
    """The site holds the SAE's reconstruction at every token."""
    ablated: float
    """The site holds the texts' mean activation at every token: nothing to tell tokens apart."""

    @property
    def recovered(self) -> float | None:
        """Share of the loss between ablated and clean that the reconstruction keeps; None where there is no loss."""
        gap = self.ablated - self.clean
        return (self.ablated - self.spliced) / gap if gap > 1e-6 else None


def reconstruction(sae: SAE, activations: Tensor) -> Reconstruction:
    """Measure on activations ``(token, d_in)``; fewer than two tokens have no variance and give an FVU of 0."""
    mean = activations.mean(0)
    unexplained = total = active = 0.0
    fired = torch.zeros(sae.d_sae, dtype=torch.bool)
    for rows in torch.split(activations, _ROWS):
        features = sae.encode(rows)
        unexplained += float((rows - sae.decode(features, x=rows).to(rows)).square().sum())
        total += float((rows - mean).square().sum())
        active += float((features > 0).sum())
        fired |= (features > 0).any(0).cpu()
    tokens = len(activations)
    return Reconstruction(unexplained / total if total else 0.0, active / tokens, int((~fired).sum()), tokens)


def loss_recovered(sae: SAE, target: Target, prompts: Sequence[Sequence[int]], *, seed: int = 0) -> LossRecovered:
    """Splice the reconstruction into the model and compare next-token losses (Bricken et al. 2023).

    Args:
        sae: it must fit the target.
        target: the model.
        prompts: token ids of each text; of each one token, drawn at random, is predicted.
        seed: of the draw.
    """
    site = sae.check_fits(target)
    random = torch.Generator().manual_seed(seed)
    long = [prompt for prompt in prompts if len(prompt) > 3]
    cuts = [int(torch.randint(2, len(prompt), (1,), generator=random)) for prompt in long]
    begun = [list(prompt[:cut]) for prompt, cut in zip(long, cuts, strict=True)]
    truth = torch.tensor([prompt[cut] for prompt, cut in zip(long, cuts, strict=True)])
    captured = target.capture(begun, [site], positions="all")[site]
    mean = torch.cat(captured).mean(0)

    def loss(rows: Sequence[Tensor] | None) -> float:
        edits = (
            []
            if rows is None
            else [[_replace(target, sae, each, prompt)] for each, prompt in zip(rows, begun, strict=True)]
        )
        logits = target.next_logits(begun, interventions=edits)
        return float(torch.nn.functional.cross_entropy(logits, truth))

    return LossRecovered(
        clean=loss(None),
        spliced=loss([sae.reconstruct(rows).to(rows) for rows in captured]),
        ablated=loss([mean.expand_as(rows) for rows in captured]),
    )


def _replace(target: Target, sae: SAE, rows: Tensor, prompt: Sequence[int]) -> Intervention:
    first = first_position(target, prompt)
    return Intervention(
        site=sae.site,
        vector=rows[first:],
        op="replace",
        phases=("prompt",),
        positions=tuple(range(first, len(prompt))),
    )
