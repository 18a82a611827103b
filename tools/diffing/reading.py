"""Run target and reference over the same passages, and keep what tells them apart.

Only sums over groups of prompts are kept of the activations, so that any number of prompts fits into memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from marple.errors import ToolError
from marple.tools.calls import report_progress
from marple.tools.contract import Cost
from marple.tools.engine.sites import Site
from marple.tools.target.target import Target

__all__ = ["GROUPS", "Passage", "Reading", "SparseRow", "check_comparable", "read_passages"]

GROUPS = 8
"""Random groups of prompts whose sums are kept; all splits of them into halves give the consistency."""
_KEPT_TOKENS = 256
_CHUNK_VALUES = 30_000_000


@dataclass(frozen=True)
class Passage:
    """Tokens that both models read."""

    tokens: tuple[int, ...]
    start: int
    """First position that counts; what is predicted there and behind it counts, too."""
    prompt: int
    """Number of the prompt it belongs to; several passages of a prompt are averaged."""
    group: int
    """Number of the group of prompts, below ``GROUPS``."""


@dataclass(frozen=True)
class SparseRow:
    """Excess of each token in one passage: the sum, over its positions, of p_target - p_reference.

    The 256 largest in size are kept. In units of tokens: 1 is one token more that the target expects to say.
    """

    tokens: Tensor
    excess: Tensor
    kl: float
    """Kullback-Leibler divergence of the next-token distributions, target from reference, nats per position."""


@dataclass(frozen=True)
class Reading:
    """Sums over the passages of each group, and one row for each passage.

    Shapes: ``difference`` and ``reference`` are ``(group, layer, d_model)``, means over a passage's positions summed
    over the group; ``norm`` is ``(layer,)``, the mean length of the reference's activations.
    """

    layers: tuple[int, ...]
    count: Tensor
    difference: Tensor
    reference: Tensor
    norm: Tensor
    rows: list[SparseRow]
    cost: Cost

    @property
    def mean_difference(self) -> Tensor:
        """Target minus reference, ``(layer, d_model)``."""
        return self.difference.sum(0) / self.count.sum()


def check_comparable(target: Target, reference: Target) -> None:
    """Raise a ToolError unless both models have the same layers, width and vocabulary."""
    for what, ours, theirs in (
        ("layers", target.layers, reference.layers),
        ("d_model", target.d_model, reference.d_model),
        ("vocabulary", _vocabulary(target), _vocabulary(reference)),
    ):
        if ours != theirs:
            raise ToolError(
                f"the target has {what} {ours} and the reference {theirs}: activations can only be subtracted between "
                "models of one shape, such as a fine-tune and its base; compare works on replies instead"
            )


def _vocabulary(model: Target) -> int:
    return int(model.model.config.get_text_config().vocab_size)


def read_passages(target: Target, passages: Sequence[Passage], *, layers: Sequence[int]) -> Reading:
    """Read all passages with both models.

    Args:
        target: with a reference of the same shape.
        passages: what to read.
        layers: whose ``resid_post`` is compared; the last layer is run in any case, for the predictions.
    """
    reference = target.reference
    assert reference is not None
    shape = (GROUPS, len(layers), target.d_model)
    count, difference, base = torch.zeros(GROUPS), torch.zeros(shape), torch.zeros(shape)
    norm = torch.zeros(len(layers))
    rows: list[SparseRow] = []
    for chunk in _chunks(passages, per_token=target.d_model * (len(layers) + 1)):
        report_progress(len(rows), len(passages), "passages")
        ours, theirs = (_states(model, chunk, layers) for model in (target, reference))
        for passage, mine, other in zip(chunk, ours, theirs, strict=True):
            count[passage.group] += 1
            difference[passage.group] += (mine[:-1] - other[:-1]).mean(1)
            base[passage.group] += other[:-1].mean(1)
            norm += other[:-1].norm(dim=-1).mean(1)
            rows.append(_row(target.lens(mine[-1]), reference.lens(other[-1])))
    cost = Cost(prompt_tokens=2 * sum(len(passage.tokens) for passage in passages))
    return Reading(tuple(layers), count, difference, base, norm / max(1, len(rows)), rows, cost)


def _states(model: Target, chunk: Sequence[Passage], layers: Sequence[int]) -> list[Tensor]:
    """For each passage ``(layer + 1, position, d_model)`` from its start on; the last layer comes last."""
    last = Site(model.layers - 1, "resid_post")
    sites = [*(Site(layer, "resid_post") for layer in layers), last]
    found = model.capture([passage.tokens for passage in chunk], list(dict.fromkeys(sites)), positions="all")
    return [
        torch.stack([found[site][at][passage.start :].float().cpu() for site in sites])
        for at, passage in enumerate(chunk)
    ]


def _row(ours: Tensor, theirs: Tensor) -> SparseRow:
    log_ours, log_theirs = ours.float().log_softmax(-1), theirs.float().log_softmax(-1)
    mine = log_ours.exp()
    excess = (mine - log_theirs.exp()).sum(0).cpu()
    kept = excess.abs().topk(min(_KEPT_TOKENS, len(excess))).indices
    return SparseRow(kept, excess[kept], float((mine * (log_ours - log_theirs)).sum(-1).mean()))


def _chunks(passages: Sequence[Passage], *, per_token: int) -> Iterator[Sequence[Passage]]:
    """Runs of passages whose captured values fit into about 120 MB."""
    start = size = 0
    for at, passage in enumerate(passages):
        size += len(passage.tokens) * per_token
        if size > _CHUNK_VALUES and at > start:
            yield passages[start:at]
            start, size = at, len(passage.tokens) * per_token
    if start < len(passages):
        yield passages[start:]
