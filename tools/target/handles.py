"""Vectors, activations and probes that stay where the model is; whoever asks gets a name."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from marple.errors import ToolError

__all__ = ["Handle", "HandleKind", "HandleStore"]

HandleKind = Literal["vector", "activations", "probe", "sae_features"]

_SHORT: dict[HandleKind, str] = {"vector": "vec", "activations": "act", "probe": "probe", "sae_features": "sae"}
_SHOWN = 12


@dataclass(frozen=True, eq=False)
class Handle:
    """Something kept under a name."""

    name: str
    kind: HandleKind
    tensors: Mapping[str, Tensor]
    """For a vector: ``vector``, ``(d_model,)``."""
    metadata: Mapping[str, Any]
    """JSON values: the site, how it was made."""

    @property
    def bytes(self) -> int:
        """Memory held."""
        return sum(tensor.nbytes for tensor in self.tensors.values())


class HandleStore:
    """Handles by name, the least recently used dropped beyond a bound of memory; safe to use from several threads.

    A name follows from the content, so that the same experiment makes the same name again.
    """

    def __init__(self, limit_bytes: int = 512 << 20) -> None:
        self._limit = limit_bytes
        self._held = 0
        self._handles: OrderedDict[str, Handle] = OrderedDict()
        self._lock = threading.Lock()

    def put(self, kind: HandleKind, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
        """Keep copies of the tensors; returns the name, such as ``vec-3f9a1c02``.

        Raises:
            ToolError: it holds NaN or infinite values, or does not fit into the memory for handles.
        """
        if kind not in get_args(HandleKind):
            raise ToolError(f"a handle's kind is {kind!r}; it must be one of {', '.join(get_args(HandleKind))}")
        kept = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        for name, tensor in kept.items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise ToolError(f"the {kind}'s {name} holds NaN or infinite values, so it is not kept")
        handle = Handle(f"{_SHORT[kind]}-{_digest(kind, kept, metadata)}", kind, kept, dict(metadata))
        if handle.bytes > self._limit:
            raise ToolError(
                f"{handle.bytes >> 20} MiB of {kind} are more than the {self._limit >> 20} MiB for handles; capture "
                "fewer positions or layers, or means"
            )
        with self._lock:
            if handle.name not in self._handles:
                self._handles[handle.name] = handle
                self._held += handle.bytes
            self._handles.move_to_end(handle.name)
            while self._held > self._limit:
                self._held -= self._handles.popitem(last=False)[1].bytes
        return handle.name

    def get(self, name: str, kind: HandleKind) -> Handle:
        """What is kept under a name.

        Raises:
            ToolError: nothing is, or something of another kind; the message lists what there is.
        """
        with self._lock:
            found = self._handles.get(name)
            if found is not None and found.kind == kind:
                self._handles.move_to_end(name)
                return found
            there = [handle.name for handle in reversed(self._handles.values()) if handle.kind == kind]
        wrong = f" is a handle of {found.kind}, not of a {kind}" if found is not None else f" is no handle of a {kind}"
        shown = ", ".join(there[:_SHOWN]) or "none; a tool's result names the handles it made"
        raise ToolError(
            f'"{name[:80]}"{wrong} in this worker (there are: {shown}); handles end with their worker and the least '
            "recently used are dropped when memory is short: make it again by the same call"
        )

    def names(self, kind: HandleKind) -> list[str]:
        """Names of all handles of a kind, the most recently used last."""
        with self._lock:
            return [handle.name for handle in self._handles.values() if handle.kind == kind]


def _digest(kind: str, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    digest = hashlib.blake2b(digest_size=4)
    digest.update(json.dumps([kind, metadata], sort_keys=True, default=str).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
