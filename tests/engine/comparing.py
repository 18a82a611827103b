"""Whether two answers are the same."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from marple.tools.engine.requests import Output

TOLERANCE = 2e-5


def assert_same(found: Output, expected: Output, *, tolerance: float = TOLERANCE) -> None:
    """Token for token, and to float32's precision for what is a number."""
    assert found.tokens == expected.tokens
    assert found.finish == expected.finish
    assert len(found.logprobs) == len(expected.logprobs)
    np.testing.assert_allclose(found.logprobs, expected.logprobs, rtol=tolerance, atol=tolerance * 5)
    assert (found.logits is None) == (expected.logits is None)
    if found.logits is not None and expected.logits is not None:
        assert_close(found.logits, expected.logits, tolerance)
    assert len(found.captured) == len(expected.captured)
    for mine, other in zip(found.captured, expected.captured, strict=True):
        assert isinstance(mine, Tensor)
        assert isinstance(other, Tensor)
        assert_close(mine, other, tolerance)


def assert_close(found: Tensor, expected: Tensor, tolerance: float = TOLERANCE) -> None:
    """Equal up to a share of the largest value."""
    assert found.shape == expected.shape
    assert found.dtype == torch.float32
    size = float(expected.abs().max()) if expected.numel() else 0.0
    torch.testing.assert_close(found, expected.float(), rtol=0, atol=tolerance * max(1.0, size))
