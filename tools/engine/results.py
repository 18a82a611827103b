"""Answers to requests that were asked before, within a bound of memory."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import replace

from torch import Tensor

from marple.tools.engine.requests import Output, Request, TopFeatures

__all__ = ["ResultCache", "copied"]

_OVERHEAD = 512


class ResultCache:
    """Content-addressed: a request is its own key, the edits' vectors and the seed included.

    It belongs to one model whose weights do not change.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._outputs: OrderedDict[Request, Output] = OrderedDict()

    def get(self, request: Request) -> Output | None:
        """The answer, if this very request was answered."""
        found = self._outputs.get(request)
        if found is None:
            return None
        self._outputs.move_to_end(request)
        return copied(found)

    def add(self, request: Request, output: Output) -> None:
        """Keep an answer; what was not asked for longest goes when memory is short."""
        size = _size(request, output)
        if request in self._outputs or size > self._limit // 8:
            return
        self._outputs[request] = copied(output)
        self._held += size
        while self._held > self._limit:
            self._held -= _size(*self._outputs.popitem(last=False))

    def clear(self) -> None:
        """Forget everything."""
        self._outputs.clear()
        self._held = 0


def copied(output: Output) -> Output:
    """An answer with tensors of its own: they can be changed in place, and whoever asks may do so."""
    captured = tuple(
        TopFeatures(one.values.clone(), one.indices.clone()) if isinstance(one, TopFeatures) else one.clone()
        for one in output.captured
    )
    return replace(output, captured=captured, logits=None if output.logits is None else output.logits.clone())


def _size(request: Request, output: Output) -> int:
    tensors = [output.logits, *(_parts(output))]
    edits = sum(edit.vector.nbytes for edit in request.interventions)
    kept = sum(tensor.nbytes for tensor in tensors if tensor is not None)
    return _OVERHEAD + 8 * (len(request.tokens) + len(output.tokens) + len(output.logprobs)) + kept + edits


def _parts(output: Output) -> list[Tensor]:
    return [
        part
        for one in output.captured
        for part in ((one.values, one.indices) if isinstance(one, TopFeatures) else (one,))
    ]
