"""Train a TopK sparse autoencoder (Gao et al. 2024) on activations, re-seeding its dead features.

Reconstruction is the only loss; sparsity comes from keeping the k strongest features of each token. Decoder rows have
unit norm. Features that stop firing start again as the error of a badly reconstructed token (Bricken et al. 2023).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import embedding_bag, normalize

from marple.errors import ToolError
from marple.tools.calls import check_cancelled
from marple.tools.saes.sae import SAE
from marple.tools.saes.weights import Weights

__all__ = ["Progress", "TrainingSettings", "train_topk"]

Progress = Callable[[int, int, str], None]
"""Gets how many steps are done, of how many, and a note such as ``fvu 0.12, dead 3``."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train."""

    d_sae: int
    """Features."""
    k: int = 12
    """Active features per token."""
    steps: int = 1000
    """Optimizer steps."""
    batch_tokens: int = 1024
    """Tokens per step, drawn without replacement within an epoch."""
    lr: float = 2e-3
    """Adam's learning rate behind the warm-up; it falls to zero over the last quarter."""
    reseed_every: int = 50
    """Steps between searches for dead features; 0 never searches. None is re-seeded in the last third."""
    seed: int = 0


def train_topk(
    activations: Tensor, settings: TrainingSettings, *, hook_name: str = "", progress: Progress | None = None
) -> SAE:
    """Train on activations of many tokens, on their own device.

    The activations are centred and scaled to a mean squared norm of their width for training; both are folded into the
    weights, so the SAE reads activations as they are.

    Args:
        activations: ``(token, d_model)``, float32.
        settings: how.
        hook_name: where they were read, for the SAE.
        progress: called about a hundred times.

    Raises:
        ToolError: there are fewer tokens than features' worth of learning needs, or a value is NaN or infinite.
        CallCancelled: the call was cancelled.
    """
    _check(activations, settings)
    mean = activations.mean(0)
    scale = (activations.shape[1] / (activations - mean).square().sum(1).mean()).sqrt()
    run = _Run((activations - mean) * scale, settings)
    every = max(1, settings.steps // 100)
    for step in range(settings.steps):
        loss = run.step(step)
        check_cancelled()
        if progress is not None and ((step + 1) % every == 0 or step + 1 == settings.steps):
            progress(step + 1, settings.steps, f"fvu {loss:.3f}, dead {run.dead_count()}")
    weights = Weights(run.W_enc.T, run.W_dec, run.b_enc, run.b_dec).fold_scaling(float(scale))
    # Centred activations x - mean: the decoder's bias, taken from the input too, takes the mean along.
    weights = Weights.from_tensors({**dict(weights.items()), "b_dec": weights.b_dec + mean})
    return SAE(architecture="topk", weights=weights, k=settings.k, hook_name=hook_name)


def _check(activations: Tensor, settings: TrainingSettings) -> None:
    tokens = activations.shape[0]
    if tokens < 2 * settings.batch_tokens:
        raise ToolError(
            f"there are {tokens} tokens to train on; at least two batches of {settings.batch_tokens} are needed: give "
            "more texts"
        )
    if not bool(torch.isfinite(activations).all()):
        raise ToolError("the activations hold NaN or infinite values")
    if not 1 <= settings.k <= min(settings.d_sae, activations.shape[1]):
        most = min(settings.d_sae, activations.shape[1])
        raise ToolError(
            f"k is {settings.k}; with {settings.d_sae} features it must be from 1 to {most}, for example 12"
        )


class _Run:
    """Parameters and their optimizer."""

    def __init__(self, x: Tensor, settings: TrainingSettings) -> None:
        self._x = x
        self._settings = settings
        self._random = torch.Generator(device=x.device).manual_seed(settings.seed)
        d_in, d_sae = x.shape[1], settings.d_sae
        rows = torch.randn(d_sae, d_in, generator=self._random, device=x.device)
        self.W_dec = normalize(rows).requires_grad_()
        self.W_enc = self.W_dec.detach().clone().requires_grad_()
        self.b_enc = torch.zeros(d_sae, device=x.device, requires_grad=True)
        self.b_dec = torch.zeros(d_in, device=x.device, requires_grad=True)
        parameters = [self.W_enc, self.W_dec, self.b_enc, self.b_dec]
        self._optimizer = torch.optim.Adam(parameters, lr=settings.lr, betas=(0.9, 0.99))
        self._last_fired = torch.zeros(d_sae, dtype=torch.long, device=x.device)
        self._order = torch.randperm(len(x), generator=self._random, device=x.device)
        self._at = self._now = 0

    def step(self, step: int) -> float:
        """One step; the share of variance that its batch left unexplained."""
        x = self._batch()
        for group in self._optimizer.param_groups:
            group["lr"] = self._settings.lr * self._schedule(step)
        out, active = self._forward(x)
        error = (out - x).square().sum(1)
        self._optimizer.zero_grad()
        torch.autograd.backward(error.mean())
        self._optimizer.step()
        with torch.no_grad():
            self.W_dec.copy_(normalize(self.W_dec))
            self._now = step + 1
            self._last_fired[active] = self._now
            due = self._settings.reseed_every and (step + 1) % self._settings.reseed_every == 0
            if due and step < self._settings.steps * 2 // 3:
                self._reseed(x, (x - out).detach(), error.detach())
        return float(error.detach().mean() / x.square().sum(1).mean())

    def dead_count(self) -> int:
        """Features that did not fire for a while."""
        return int(self._dead().sum())

    def _batch(self) -> Tensor:
        size = self._settings.batch_tokens
        if self._at + size > len(self._x):
            self._order = torch.randperm(len(self._x), generator=self._random, device=self._x.device)
            self._at = 0
        self._at += size
        return self._x[self._order[self._at - size : self._at]]

    def _schedule(self, step: int) -> float:
        steps = self._settings.steps
        return min(1.0, (step + 1) / (0.05 * steps + 1), (steps - step) / (0.25 * steps))

    def _forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        before = torch.addmm(self.b_enc, x - self.b_dec.detach(), self.W_enc.T)
        values, indices = before.topk(self._settings.k, sorted=False)
        values = values.relu()
        out = embedding_bag(indices, self.W_dec, per_sample_weights=values, mode="sum") + self.b_dec
        return out, torch.unique(indices[values > 0])

    def _dead(self) -> Tensor:
        return self._now - self._last_fired >= max(25, self._settings.reseed_every)

    def _reseed(self, x: Tensor, residual: Tensor, error: Tensor) -> None:
        dead = self._dead().nonzero().squeeze(1)
        if not len(dead):
            return
        dead = dead[: len(x)]
        chosen = torch.multinomial(error, len(dead), generator=self._random)
        directions = normalize(residual[chosen])
        alive = self.W_enc.norm(dim=1).median()
        self.W_dec[dead] = directions
        self.W_enc[dead] = directions * alive
        self.b_enc[dead] = 0
        self._last_fired[dead] = self._now
        for parameter in (self.W_enc, self.W_dec, self.b_enc):
            for moment in ("exp_avg", "exp_avg_sq"):
                self._optimizer.state[parameter][moment][dead] = 0
