"""The largest values of long rows, exactly, without sorting all of them."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["exact_topk"]

_GROUP = 16


def exact_topk(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """What ``values.topk(k)`` gives, faster on rows much longer than ``k``.

    The k largest elements lie in the k groups with the largest maxima, so only those groups are searched.

    Args:
        values: ``(row, n)``.
        k: how many, at most ``n``.

    Returns:
        Values in falling order and their indices, both ``(row, k)``. Among equal values any may come first.
    """
    rows, n = values.shape
    columns = n // _GROUP
    if n % _GROUP or columns < 8 * k:
        return torch.topk(values, k)
    # Element (j, c) of a row is number j * columns + c: maxima over j run along contiguous memory.
    grid = values.view(rows, _GROUP, columns)
    chosen = grid.amax(1).topk(k, sorted=False).indices
    candidates = grid.gather(2, chosen.unsqueeze(1).expand(rows, _GROUP, k)).flatten(1)
    best, at = candidates.topk(k)
    return best, at // k * columns + chosen.gather(1, at % k)
