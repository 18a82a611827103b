"""Which tokens does the target want to say that the reference does not, and under which condition?

The statistic of a token is its mean excess over the prompts (in a condition: less that over all prompts) in standard
errors, with 0.05 tokens added to the standard deviation (Tusher, Tibshirani & Chu 2001), so that tokens with next to no
probability do not lead. Two nulls are shuffled:

- over all prompts: the sign of each prompt's row, as if target and reference could be swapped;
- in a condition against the others: which prompts the condition has. Of two conditions each is the other's opposite,
  so that a token has one row, under the condition where its excess is larger in size.

The largest statistic of each shuffle gives a threshold, and all of them p-values, put through Benjamini and Hochberg's
procedure.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marple.tools.differences import EVERYTHING
from marple.tools.diffing.reading import SparseRow
from marple.tools.statistics import benjamini_hochberg

__all__ = ["ExcessRow", "ExcessTest", "excess_table", "find_excess"]

_Array = NDArray[np.float64]
_STEADYING = 0.05
_TESTED_TOKENS = 1000
_LEAST_PROMPTS = 6


@dataclass(frozen=True)
class ExcessRow:
    """One token in one condition."""

    condition: str
    token: int
    excess: float
    """Mean over the condition's prompts, in tokens per reply."""
    elsewhere: float | None
    """The same over the prompts of all other conditions; None over all."""
    statistic: float
    """In standard errors, with 0.05 tokens added to the standard deviation."""
    q: float
    above_null: bool
    """Whether the statistic reaches what the largest of all reaches by chance in 5 % of the shuffles."""

    @property
    def found(self) -> bool:
        """Whether it passes the false-discovery control and exceeds the shuffled null."""
        return self.q <= 0.05 and self.above_null

    @property
    def effect(self) -> float:
        """Excess, less what it is elsewhere."""
        return self.excess - (self.elsewhere or 0.0)


@dataclass(frozen=True)
class ExcessTest:
    """All tokens tested in one way, the largest statistic first."""

    rows: tuple[ExcessRow, ...]
    threshold: float
    shuffles: int

    @property
    def found(self) -> list[ExcessRow]:
        """Rows that exceed chance."""
        return [row for row in self.rows if row.found]

    def summary(self) -> dict[str, Any]:
        """For a result's controls."""
        return {
            "tested": len(self.rows),
            "found": len(self.found),
            "largest_statistic": max((abs(row.statistic) for row in self.rows), default=0.0),
            "shuffled_threshold": self.threshold,
            "shuffles": self.shuffles,
        }


def excess_table(rows: Sequence[SparseRow], prompts: Sequence[int]) -> tuple[_Array, list[int]]:
    """Excess ``(prompt, token)`` with the tokens' ids; the tokens with most of it in size, whatever its sign and place.

    Args:
        rows: one for each passage.
        prompts: the prompt of each row, from 0 without gaps; the rows of a prompt are averaged.
    """
    share = 1 / np.bincount(prompts)
    size: dict[int, float] = {}
    for row, prompt in zip(rows, prompts, strict=True):
        for token, value in zip(row.tokens.tolist(), row.excess.tolist(), strict=True):
            size[token] = size.get(token, 0.0) + abs(value) * float(share[prompt])
    tokens = sorted(size, key=lambda token: (-size[token], token))[:_TESTED_TOKENS]
    place = {token: at for at, token in enumerate(tokens)}
    table = np.zeros((len(share), len(tokens)))
    for row, prompt in zip(rows, prompts, strict=True):
        for token, value in zip(row.tokens.tolist(), row.excess.tolist(), strict=True):
            if token in place:
                table[prompt, place[token]] += value * share[prompt]
    return table, tokens


def find_excess(
    table: _Array, tokens: Sequence[int], conditions: Sequence[str], *, seed: int, shuffles: int = 200
) -> dict[str, ExcessTest]:
    """The tests that there are prompts for: ``overall`` from 6 prompts, ``by_condition`` also from 2 conditions.

    Args:
        table: ``(prompt, token)``.
        tokens: ids of the columns.
        conditions: label of each prompt.
        seed: of the shuffles.
        shuffles: number of shuffles of each null.
    """
    if len(table) < _LEAST_PROMPTS:
        return {}
    generator = np.random.default_rng(seed)
    tests = {"overall": _overall(table, tokens, generator, shuffles)}
    if len(set(conditions)) > 1:
        tests["by_condition"] = _by_condition(table, tokens, conditions, generator, shuffles)
    return tests


def _overall(table: _Array, tokens: Sequence[int], generator: np.random.Generator, shuffles: int) -> ExcessTest:
    n = len(table)
    square = (table**2).mean(0)

    def statistic(signs: _Array) -> _Array:
        mean = signs @ table / n
        return np.asarray(mean * np.sqrt(n) / (np.sqrt(np.maximum(square - mean**2, 0)) + _STEADYING))

    shuffled = np.stack([statistic(generator.choice([-1.0, 1.0], n)) for _ in range(shuffles)])
    mean = table.mean(0)
    return _judge(
        statistic(np.ones(n)),
        shuffled,
        lambda at: {"condition": EVERYTHING, "token": tokens[at], "excess": float(mean[at]), "elsewhere": None},
    )


def _by_condition(
    table: _Array, tokens: Sequence[int], conditions: Sequence[str], generator: np.random.Generator, shuffles: int
) -> ExcessTest:
    names = list(dict.fromkeys(conditions))
    tested = names[:1] if len(names) == 2 else names
    inside = np.stack([np.array(conditions) == name for name in tested]).astype(np.float64)
    n, size = len(table), inside.sum(1, keepdims=True)
    mean, spread = table.mean(0), table.std(0) + _STEADYING
    error = np.sqrt(1 / size - 1 / n)

    def statistic(members: _Array) -> _Array:
        return np.asarray((members @ table / size - mean) / (spread * error)).ravel()

    shuffled = np.stack([statistic(inside[:, generator.permutation(n)]) for _ in range(shuffles)])
    means = inside @ table / size
    others = (mean * n - means * size) / (n - size)

    def describe(at: int) -> dict[str, Any]:
        row, column = divmod(at, len(tokens))
        excess, elsewhere = float(means[row, column]), float(others[row, column])
        if len(tested) < len(names) and abs(elsewhere) > abs(excess):
            row, excess, elsewhere = 1, elsewhere, excess
        return {"condition": names[row], "token": tokens[column], "excess": excess, "elsewhere": elsewhere}

    return _judge(statistic(inside), shuffled, describe)


def _judge(statistic: _Array, shuffled: _Array, describe: Callable[[int], dict[str, Any]]) -> ExcessTest:
    size = np.abs(shuffled)
    threshold = float(np.quantile(size.max(axis=1, initial=0.0), 0.95))
    pooled = np.sort(size, axis=None)
    reached = pooled.size - np.searchsorted(pooled, np.abs(statistic) - 1e-9)
    q = benjamini_hochberg((1 + reached) / (1 + pooled.size))
    rows = []
    for at, value in enumerate(statistic):
        described = describe(at)
        # A row that tells of the other of two conditions has the opposite statistic.
        sign = np.copysign(value, described["excess"] - (described["elsewhere"] or 0.0))
        above = bool(abs(value) >= threshold)
        rows.append(ExcessRow(**described, statistic=float(sign), q=float(q[at]), above_null=above))
    rows.sort(key=lambda row: (-abs(row.statistic), row.condition, row.token))
    return ExcessTest(tuple(rows), threshold, len(shuffled))
