"""Gradients of an answer by the inputs and by activations, averaged over a line between two inputs.

Everything runs on the ``transformers`` model itself, with the residual stream before the first layer as the input, so
that embeddings, their scaling and learned positions are all in it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from marple.tools.calls import report_progress
from marple.tools.engine.sites import Site
from marple.tools.target.target import Target

__all__ = ["Metric", "PathGradients", "input_states", "path_gradients", "path_points"]

_BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Metric:
    """What is explained, a number for each run.

    With ``other`` it is the logit of ``answer[0]`` minus that of ``other`` behind the prompt; without it the
    log-probability (nats) of all tokens of ``answer`` behind the prompt.
    """

    answer: tuple[int, ...]
    other: int | None = None

    def tokens(self, prompt: Sequence[int]) -> list[int]:
        """What must be run to see it."""
        return [*prompt, *(self.answer[:-1] if self.other is None else ())]

    def __call__(self, logits: Tensor) -> Tensor:
        """The number for each row, from logits ``(row, position, vocab)`` that begin at the prompt's last position."""
        if self.other is not None:
            return logits[:, 0, self.answer[0]] - logits[:, 0, self.other]
        steps = logits[:, : len(self.answer)].float().log_softmax(-1)
        index = torch.tensor(self.answer, device=logits.device).expand(len(logits), -1)
        return steps.gather(-1, index.unsqueeze(-1)).squeeze(-1).sum(-1)


@dataclass(frozen=True)
class PathGradients:
    """Mean gradients of the metric over points on the straight line between two inputs, float32 on the CPU.

    Shapes: ``values`` ``(point,)``; ``inputs`` ``(position, d_model)``, of the residual stream before the first layer;
    ``sites`` ``(position, d_model)`` each.
    """

    values: Tensor
    inputs: Tensor
    sites: dict[Site, Tensor]


def path_points(steps: int) -> list[float]:
    """Midpoints of ``steps`` equal parts of the line from 0 to 1."""
    return [(step + 0.5) / steps for step in range(steps)]


def input_states(target: Target, prompts: Sequence[Sequence[int]]) -> list[Tensor]:
    """The residual stream before the first layer, ``(position, d_model)`` for each prompt."""
    site = Site(0, "resid_pre")
    return target.capture(prompts, [site], positions="all")[site]


def path_gradients(
    target: Target,
    prompt: Sequence[int],
    metric: Metric,
    *,
    start: Tensor,
    end: Tensor,
    points: Sequence[float],
    sites: Sequence[Site] = (),
) -> PathGradients:
    """Run the model on points of the line from ``start`` to ``end`` and average the metric's gradients.

    Args:
        target: the model.
        prompt: tokens; they only give the positions, because the inputs are replaced.
        metric: what is differentiated.
        start: inputs at 0, ``(position, d_model)``, for all of ``metric.tokens(prompt)``.
        end: inputs at 1.
        points: places on the line; 0 and 1 are allowed.
        sites: where else gradients are taken; all but ``resid_mid``.
    """
    ids = metric.tokens(prompt)
    size = max(1, _BATCH_TOKENS // len(ids))
    values: list[Tensor] = []
    total = torch.zeros_like(start)
    at_sites = {site: torch.zeros_like(start) for site in sites}
    for first in range(0, len(points), size):
        report_progress(first, len(points), "gradient steps")
        part = torch.tensor(points[first : first + size])[:, None, None]
        inputs = start + part * (end - start)
        found, gradients = _gradients(target, ids, len(prompt), metric, inputs, sites)
        values.append(found)
        total += gradients[0].sum(0)
        for site, gradient in zip(sites, gradients[1:], strict=True):
            at_sites[site] += gradient.sum(0)
    count = len(points)
    return PathGradients(torch.cat(values), total / count, {site: one / count for site, one in at_sites.items()})


def _gradients(
    target: Target, ids: Sequence[int], prompt: int, metric: Metric, inputs: Tensor, sites: Sequence[Site]
) -> tuple[Tensor, list[Tensor]]:
    """The metric of each row, and its gradients by the inputs and the sites, ``(row, position, d_model)`` each."""
    parts = target.architecture
    with target.exclusive() as model, torch.enable_grad(), _replaced_input(parts.layers[0], inputs) as leaf:
        with ExitStack() as stack:
            kept = [stack.enter_context(_kept(target, site)) for site in sites]
            tokens = torch.tensor([list(ids)] * len(inputs), device=model.device)
            hidden = parts.decoder(input_ids=tokens, use_cache=False).last_hidden_state
            values = metric(parts.head(hidden[:, prompt - 1 :]))
        of = [leaf[0], *(one[0] for one in kept)]
        # A site behind the last position that counts has no gradient.
        gradients = torch.autograd.grad(values.sum(), of, allow_unused=True)
    filled = [
        torch.zeros_like(one) if gradient is None else gradient for one, gradient in zip(of, gradients, strict=True)
    ]
    return values.detach().float().cpu(), [one.detach().float().cpu() for one in filled]


@contextmanager
def _replaced_input(layer: Any, inputs: Tensor) -> Iterator[list[Tensor]]:
    """Give a layer other inputs, and hand out the tensor they become."""
    leaf: list[Tensor] = []

    def replace(
        module: Any, arguments: tuple[Any, ...], named: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        before = arguments[0] if arguments else named["hidden_states"]
        leaf.append(inputs.to(before).requires_grad_())
        if arguments:
            return (leaf[0], *arguments[1:]), named
        return arguments, {**named, "hidden_states": leaf[0]}

    handle = layer.register_forward_pre_hook(replace, with_kwargs=True)
    try:
        yield leaf
    finally:
        handle.remove()


@contextmanager
def _kept(target: Target, site: Site) -> Iterator[list[Tensor]]:
    """The activation at a site, for its gradient; filled when the model runs."""
    parts, found = target.architecture, []
    if site.name == "resid_pre":

        def before(module: Any, arguments: tuple[Any, ...], named: dict[str, Any]) -> None:
            found.append(arguments[0] if arguments else named["hidden_states"])

        handle = parts.layers[site.layer].register_forward_pre_hook(before, with_kwargs=True)
    else:
        module = {"resid_post": parts.layers, "attn_out": parts.attention, "mlp_out": parts.mlp}[site.name][site.layer]

        def after(module: Any, arguments: tuple[Any, ...], output: Any) -> None:
            found.append(output[0] if isinstance(output, tuple) else output)

        handle = module.register_forward_hook(after)
    try:
        yield found
    finally:
        handle.remove()
