"""Keys and values of many rows in preallocated memory, each row with its own length."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

__all__ = ["KeyValues", "Slots"]

KeyValues = list[tuple[Tensor, Tensor]]
"""For each layer the keys and the values of one row, ``(head, position, head_dim)``."""

_GRAIN = 64


@dataclass(frozen=True)
class _Window:
    """Where a pass writes: ``width`` new positions of the first ``rows`` rows, from each row's start."""

    rows: int
    width: int
    total: int
    start: int | None
    """Where all rows start, if they start together."""
    row_index: Tensor
    positions: Tensor
    """Where each token's keys and values go; what pads a row goes behind it."""
    last: Tensor
    """Each row's last position that is no padding."""


class Slots:
    """A key-value cache as transformers' decoders use one, but with a length for each row.

    The rows in use are always the first ones, so that what attention reads is a view and nothing is gathered.

    Args:
        layers: of the model.
        device: where it is.
        grain: positions are reserved in multiples of this; 1 reserves exactly what is asked for.
    """

    def __init__(self, layers: int, device: torch.device, *, grain: int = _GRAIN) -> None:
        self._keys: list[Tensor | None] = [None] * layers
        self._values: list[Tensor | None] = [None] * layers
        self._device = device
        self._grain = grain
        self._rows = self._capacity = 0
        self._window: _Window | None = None

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(one.nbytes for one in (*self._keys, *self._values) if one is not None)

    def is_wasteful(self, rows: int, length: int) -> bool:
        """Whether it holds more than eight times the memory that so much needs."""
        return self._rows * self._capacity > 8 * max(rows, 8) * max(length, self._grain)

    def reserve(self, rows: int, length: int) -> None:
        """Make room for ``rows`` rows of ``length`` positions; what is stored stays."""
        if rows <= self._rows and length <= self._capacity:
            return
        if rows > self._rows:
            self._rows = rows if self._grain == 1 else max(rows, 2 * self._rows)
        self._capacity = max(-(-length // self._grain) * self._grain, self._capacity)
        for store in (self._keys, self._values):
            for layer, old in enumerate(store):
                if old is not None:
                    store[layer] = self._grown(old)

    def open(self, starts: list[int], counts: list[int]) -> None:
        """Announce a pass over the first ``len(starts)`` rows, each with so many new positions."""
        width = max(counts)
        total = max(starts) + width
        self.reserve(len(starts), total)
        together = starts[0] if min(starts) == max(starts) else None
        first = torch.tensor(starts, device=self._device).unsqueeze(1)
        self._window = _Window(
            rows=len(starts),
            width=width,
            total=total,
            start=together,
            row_index=torch.arange(len(starts), device=self._device).unsqueeze(1),
            positions=first + torch.arange(width, device=self._device),
            last=first + torch.tensor(counts, device=self._device).unsqueeze(1) - 1,
        )

    @property
    def position_ids(self) -> Tensor:
        """Absolute positions of the announced pass, ``(row, width)``; padding repeats the row's last one."""
        assert self._window is not None
        return torch.minimum(self._window.positions, self._window.last).clamp_(min=0)

    def needs_no_mask(self, windows: Sequence[int | None]) -> bool:
        """Whether plain causal attention is right: every row begins, or all are equally long and one token is added."""
        assert self._window is not None
        start, width, total = self._window.start, self._window.width, self._window.total
        narrowest = min((window for window in windows if window is not None), default=total)
        return start == 0 or (start is not None and width == 1 and total <= narrowest)

    def mask(self, dtype: torch.dtype, window: int | None) -> Tensor:
        """Additive attention mask ``(row, 1, width, total)`` of the announced pass."""
        assert self._window is not None
        keys = torch.arange(self._window.total, device=self._device)
        queries = self._window.positions.unsqueeze(-1)
        seen = keys <= queries
        if window is not None:
            seen &= keys > queries - window
        hidden = torch.finfo(dtype).min
        return torch.zeros(seen.shape, dtype=dtype, device=self._device).masked_fill_(~seen, hidden).unsqueeze(1)

    # ------------------------------------------------------------------------------- as transformers' layers use it

    def update(self, keys: Tensor, values: Tensor, layer: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Store a layer's ``(row, head, width, head_dim)`` and return all it has, ``(row, head, total, head_dim)``."""
        assert self._window is not None
        return self._write(self._keys, keys, layer), self._write(self._values, values, layer)

    def get_seq_length(self, layer: int = 0) -> int:
        """Positions seen before the announced pass, where all rows start together."""
        return (self._window.start or 0) if self._window is not None else 0

    def get_mask_sizes(self, query_length: int, layer: int = 0) -> tuple[int, int]:
        """Keys of the announced pass and the offset of the first."""
        assert self._window is not None
        return self._window.total, 0

    def get_query_offset(self, layer: int = 0) -> int:
        """Position of the first query."""
        return self.get_seq_length(layer)

    def _write(self, store: list[Tensor | None], new: Tensor, layer: int) -> Tensor:
        window = self._window
        assert window is not None
        held = store[layer]
        if held is None:
            shape = (self._rows, new.shape[1], self._capacity, new.shape[3])
            held = store[layer] = new.new_zeros(shape)
        if window.start is not None:
            held[: window.rows, :, window.start : window.start + window.width] = new
            if window.start == 0:
                return new
        else:
            held[window.row_index, :, window.positions] = new.transpose(1, 2)
        return held[: window.rows, :, : window.total]

    # ------------------------------------------------------------------------------- rows

    def take(self, row: int, length: int) -> KeyValues:
        """The first ``length`` positions of a row: views."""
        return [
            (keys[row, :, :length], values[row, :, :length])
            for keys, values in zip(self._keys, self._values, strict=True)
            if keys is not None and values is not None
        ]

    def put(self, row: int, stored: KeyValues, length: int) -> None:
        """Copy the first ``length`` positions of another row in; ``reserve`` comes first."""
        for layer, (keys, values) in enumerate(stored):
            for store, one in ((self._keys, keys), (self._values, values)):
                held = store[layer]
                if held is None:
                    held = store[layer] = one.new_zeros((self._rows, one.shape[0], self._capacity, one.shape[2]))
                held[row, :, :length] = one[:, :length]
                # What another row left behind may be infinite, and a mask does not hide that.
                held[row, :, length:] = 0

    def move(self, source: int, destination: int, length: int) -> None:
        """Copy a row within."""
        if source != destination:
            self.put(destination, self.take(source, length), length)

    def _grown(self, old: Tensor) -> Tensor:
        new = old.new_zeros((self._rows, old.shape[1], self._capacity, old.shape[3]))
        new[: old.shape[0], :, : old.shape[2]] = old
        return new
