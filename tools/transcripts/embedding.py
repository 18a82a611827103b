"""Texts as points, near each other when they are about the same: TF-IDF with truncated SVD, or mean activations."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from marple.errors import ToolError
from marple.tools.calls import report_progress
from marple.tools.contract import Cost
from marple.tools.ngrams import is_filler
from marple.tools.transcripts.corpus import words_in

if TYPE_CHECKING:
    from marple.tools.target.target import Target

__all__ = ["Activations", "TfIdf", "unit_rows"]

_Array = NDArray[np.float32]
_VOCABULARY = 8192
_DIMENSIONS = 64
_OVERSAMPLE = 10
_ROWS = 256
_POWER_ITERATIONS = 2


def unit_rows(matrix: _Array) -> _Array:
    """Rows scaled to length one; rows of zeros stay."""
    lengths = np.linalg.norm(matrix, axis=1, keepdims=True)
    return np.asarray(matrix / np.maximum(lengths, 1e-12), dtype=np.float32)


@dataclass(frozen=True)
class _Sparse:
    """Rows of term weights."""

    starts: NDArray[np.int64]
    columns: NDArray[np.int32]
    values: _Array
    width: int

    @property
    def rows(self) -> int:
        return len(self.starts) - 1

    def block(self, start: int, stop: int) -> _Array:
        """Rows from start to stop as a dense matrix."""
        dense = np.zeros((stop - start, self.width), dtype=np.float32)
        span = slice(self.starts[start], self.starts[stop])
        rows = np.repeat(np.arange(stop - start), np.diff(self.starts[start : stop + 1]))
        dense[rows, self.columns[span]] = self.values[span]
        return dense

    def times(self, right: _Array) -> _Array:
        """This matrix times another, a block of rows at a time."""
        blocks = [self.block(at, min(at + _ROWS, self.rows)) @ right for at in range(0, self.rows, _ROWS)]
        return np.concatenate(blocks)

    def transposed_times(self, right: _Array) -> _Array:
        """The transpose times another."""
        total = np.zeros((self.width, right.shape[1]), dtype=np.float32)
        for at in range(0, self.rows, _ROWS):
            stop = min(at + _ROWS, self.rows)
            total += self.block(at, stop).T @ right[at:stop]
        return total


class TfIdf:
    """Latent semantic analysis (Deerwester et al. 1990): TF-IDF of words, reduced by a randomised truncated SVD.

    The SVD is Halko, Martinsson & Tropp's (2011), algorithms 4.4 and 5.1, with 64 dimensions. Words that fewer than two
    or more than half of the texts say, and function words, are left out; of the others the 8,192 most frequent stay.

    Args:
        texts: the corpus; it is iterated twice, so give something that can be.
        seed: of the random projection.
    """

    name = "TF-IDF of words, reduced to 64 dimensions by truncated SVD"

    def __init__(self, texts: Iterable[str], *, seed: int) -> None:
        documents, total = _document_counts(texts)
        kept = [word for word, count in documents.items() if 2 <= count <= total / 2 and not is_filler(word)]
        kept.sort(key=lambda word: (-documents[word], word))
        self.vocabulary = {word: at for at, word in enumerate(kept[:_VOCABULARY])}
        if total < 2 or not self.vocabulary:
            raise ToolError(
                f"{total} transcripts share no telling words, so they have no place in a semantic space; widen where, "
                'or search with "mode": "full_text"'
            )
        self._idf = np.array([math.log(total / documents[word]) for word in self.vocabulary], dtype=np.float32)
        self._basis, self.points = self._fit(self._weights(texts), np.random.default_rng(seed))

    def embed(self, texts: Sequence[str]) -> _Array:
        """Points of other texts in the same space, of length one: ``(text, dimension)``."""
        return unit_rows(self._weights(texts).times(self._basis))

    def _fit(self, weights: _Sparse, generator: np.random.Generator) -> tuple[_Array, _Array]:
        rank = min(_DIMENSIONS + _OVERSAMPLE, weights.rows, weights.width)
        start = generator.standard_normal((weights.width, rank)).astype(np.float32)
        spanned = np.linalg.qr(weights.times(start))[0]
        for _ in range(_POWER_ITERATIONS):
            spanned = np.linalg.qr(weights.times(np.linalg.qr(weights.transposed_times(spanned))[0]))[0]
        small = weights.transposed_times(spanned)
        left, _, _ = np.linalg.svd(small, full_matrices=False)
        basis = np.ascontiguousarray(left[:, :_DIMENSIONS])
        return basis, unit_rows(weights.times(basis))

    def _weights(self, texts: Iterable[str]) -> _Sparse:
        starts, columns, values = array("q", [0]), array("i"), array("f")
        for text in texts:
            counts = Counter(at for word in words_in(text) if (at := self.vocabulary.get(word)) is not None)
            weights = [(1 + math.log(count)) * float(self._idf[at]) for at, count in counts.items()]
            length = math.sqrt(sum(weight * weight for weight in weights)) or 1.0
            columns.extend(counts)
            values.extend(weight / length for weight in weights)
            starts.append(len(columns))
        return _Sparse(
            np.frombuffer(starts, np.int64),
            np.array(columns, dtype=np.int32),
            np.array(values, dtype=np.float32),
            len(self.vocabulary),
        )


class Activations:
    """The target's own view: the mean residual stream over a text's tokens, the corpus mean taken off.

    Args:
        target: the model that reads.
        texts: the corpus.
        layer: the layer behind which the residual stream is read; by default the one in the middle.
    """

    def __init__(self, target: Target, texts: Iterable[str], *, layer: int | None = None) -> None:
        self._target = target
        self._site = target.site("resid_post", layer=target.layers // 2 if layer is None else layer)
        self.name = f"the target's mean activation at {self._site}"
        self.cost = Cost()
        points = self._read(texts)
        self._mean = points.mean(axis=0, keepdims=True)
        self.points = unit_rows(points - self._mean)

    def embed(self, texts: Sequence[str]) -> _Array:
        """Points of other texts, of length one: ``(text, d_model)``."""
        return unit_rows(self._read(texts) - self._mean)

    def _read(self, texts: Iterable[str]) -> _Array:
        room = self._target.context or 4096
        points, batch = list[_Array](), list[list[int]]()
        for text in texts:
            batch.append((self._target.encode(text) or self._target.encode(" "))[:room])
            if len(batch) == _ROWS:
                points += self._capture(batch)
                batch = []
                report_progress(len(points), len(points), "transcripts read by the target")
        points += self._capture(batch)
        return np.stack(points)

    def _capture(self, batch: Sequence[Sequence[int]]) -> list[_Array]:
        if not batch:
            return []
        self.cost = self.cost + Cost(prompt_tokens=sum(map(len, batch)))
        captured = self._target.capture(batch, [self._site], positions="all", mean=True)[self._site]
        return [np.asarray(row.cpu().numpy(), dtype=np.float32) for row in captured]


def _document_counts(texts: Iterable[str]) -> tuple[Counter[str], int]:
    counts: Counter[str] = Counter()
    total = 0
    for text in texts:
        counts.update(set(words_in(text)))
        total += 1
    return counts, total
