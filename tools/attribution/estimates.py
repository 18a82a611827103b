"""Attribution patching and integrated gradients, each beside what really happens when activations are replaced."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from marple.tools.attribution.gradients import Metric, input_states, path_gradients, path_points
from marple.tools.engine.interventions import Intervention
from marple.tools.engine.sites import Site
from marple.tools.target.target import Target

__all__ = ["Estimate", "cells_to_check", "estimate_patches", "integrate_inputs", "measure", "random_control"]


@dataclass(frozen=True)
class Estimate:
    """Estimated effects of cells beside what really happens in some of them.

    Shapes: ``effect`` and ``control`` ``(layer, position)``, in units of the metric; ``control`` is the 95th percentile
    of the size of the same estimate with differences of the same length in random directions.
    """

    effect: Tensor
    control: Tensor
    checked: list[tuple[int, int, float]]
    """Cells (row, column) whose effect was measured by replacing the activation, and what it was."""
    measured: float
    """What replacing everything does to the metric."""

    @property
    def agreement(self) -> float | None:
        """Pearson correlation of estimate and measurement over the checked cells; None where one is constant."""
        pairs = torch.tensor([[float(self.effect[row, column]), value] for row, column, value in self.checked])
        if len(pairs) < 3 or bool((pairs.std(0) < 1e-9).any()):
            return None
        return float(torch.corrcoef(pairs.T)[0, 1])


def measure(
    target: Target, prompts: Sequence[Sequence[int]], metric: Metric, edits: Sequence[Sequence[Intervention]]
) -> Tensor:
    """The metric of each prompt with its edits, by the engine, ``(prompt,)``."""
    if metric.other is not None:
        logits = target.next_logits(prompts, interventions=edits)
        return logits[:, metric.answer[0]] - logits[:, metric.other]
    pairs = [(prompt, metric.answer) for prompt in prompts]
    return torch.tensor([sum(row) for row in target.score(pairs, interventions=edits)])


def random_control(change: Tensor, gradient: Tensor, generator: torch.Generator) -> Tensor:
    """95th percentile of the size of gradient times a random direction as long as the change, ``(position,)``.

    Args:
        change: ``(position, d_model)``.
        gradient: the same shape.
        generator: of the 200 directions.
    """
    random = torch.randn(200, change.shape[-1], generator=generator)
    random = random / random.norm(dim=-1, keepdim=True)
    size = (gradient @ random.T).abs() * change.norm(dim=-1, keepdim=True)
    return torch.quantile(size, 0.95, dim=-1)


def cells_to_check(effect: Tensor, count: int, generator: torch.Generator) -> list[tuple[int, int]]:
    """The ``count`` cells with the largest estimates in size, and as many others drawn at random."""
    order = effect.abs().flatten().argsort(descending=True, stable=True)
    rest = order[count:]
    others = rest[torch.randperm(len(rest), generator=generator)[:count]]
    return [divmod(int(cell), effect.shape[1]) for cell in (*order[:count], *others)]


def estimate_patches(
    target: Target,
    clean: Sequence[int],
    corrupted: Sequence[int],
    metric: Metric,
    *,
    sites: Sequence[Site],
    positions: Sequence[int],
    steps: int,
    check: int,
    seed: int,
) -> Estimate:
    """Attribution patching: what putting the clean activation into the corrupted run would do, in every cell.

    With one step the gradient is that of the corrupted run (Nanda 2023), which misses what is saturated there (Kramar
    et al. 2024); with more it is averaged over inputs between both runs (Hanna, Pezzelle & Belinkov 2024).

    Args:
        target: the model.
        clean: tokens.
        corrupted: as many.
        metric: what is explained.
        sites: one for each row.
        positions: one for each column, negative from the end.
        steps: how many gradients are averaged.
        check: how many of the largest cells, and of others, are really patched.
        seed: of the controls.
    """
    ids = [metric.tokens(clean), metric.tokens(corrupted)]
    start, end = input_states(target, [ids[1], ids[0]])
    points = path_points(steps) if steps > 1 else [0.0]
    gradients = path_gradients(target, corrupted, metric, start=start, end=end, points=points, sites=sites).sites
    # Positions count from the end of the prompt; the tokens of a continuation come behind it.
    columns = [len(clean) + position for position in positions]
    found = target.capture(ids, sites, positions=columns)
    changes = [found[site][0] - found[site][1] for site in sites]
    generator = torch.Generator().manual_seed(seed % 2**63)
    slopes = [gradients[site][columns] for site in sites]
    pairs = list(zip(changes, slopes, strict=True))
    effect = torch.stack([(change * slope).sum(-1) for change, slope in pairs])
    control = torch.stack([random_control(change, slope, generator) for change, slope in pairs])
    cells = cells_to_check(effect, check, generator)
    edits: list[list[Intervention]] = [[], []]
    edits += [[_replace(sites[row], found[sites[row]][0][column], columns[column])] for row, column in cells]
    values = measure(target, [clean, *[corrupted] * (len(edits) - 1)], metric, edits)
    checked = [(*cell, float(value - values[1])) for cell, value in zip(cells, values[2:], strict=True)]
    return Estimate(effect, control, checked, float(values[0] - values[1]))


def integrate_inputs(
    target: Target, prompt: Sequence[int], baseline: Tensor, metric: Metric, *, steps: int, check: int, seed: int
) -> Estimate:
    """Integrated gradients of each input position, from a baseline to the prompt (Sundararajan, Taly & Yan 2017).

    They sum to ``measured``, what replacing all inputs by the baseline takes away, but for the error of the steps
    (completeness).

    Args:
        target: the model.
        prompt: tokens.
        baseline: inputs of the prompt's positions, ``(position, d_model)`` before the first layer.
        metric: what is explained.
        steps: points on the line between baseline and inputs.
        check: how many of the largest positions, and of others, are really replaced by the baseline.
        seed: of the controls.
    """
    whole = input_states(target, [metric.tokens(prompt)])[0]
    start = torch.cat([baseline, whole[len(prompt) :]])
    gradient = path_gradients(target, prompt, metric, start=start, end=whole, points=path_points(steps)).inputs
    change = (whole - start)[: len(prompt)]
    gradient = gradient[: len(prompt)]
    generator = torch.Generator().manual_seed(seed % 2**63)
    effect = (change * gradient).sum(-1)[None]
    control = random_control(change, gradient, generator)[None]
    cells = cells_to_check(effect, check, generator)
    site = Site(0, "resid_pre")
    everything = [_replace(site, baseline[at], at) for at in range(len(prompt))]
    edits = [[], everything] + [[everything[column]] for _, column in cells]
    values = measure(target, [prompt] * len(edits), metric, edits)
    checked = [(*cell, float(values[0] - value)) for cell, value in zip(cells, values[2:], strict=True)]
    return Estimate(effect, control, checked, float(values[0] - values[1]))


def _replace(site: Site, vector: Tensor, position: int) -> Intervention:
    return Intervention(site, vector, op="replace", phases=("prompt",), positions=(position,))
