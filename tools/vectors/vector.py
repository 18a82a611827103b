"""A direction at a site, and the handle under which the worker keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from marple.errors import ToolError
from marple.tools.engine.sites import Site, parse_site

if TYPE_CHECKING:
    from marple.tools.target.target import Target

__all__ = ["Vector", "check_width", "keep_vector", "kept_direction"]


@dataclass(frozen=True, eq=False)
class Vector:
    """A direction in the activations of one site, float32 on the CPU.

    Raises:
        ToolError: it is not one-dimensional, not finite, or 0.
    """

    site: Site
    direction: Tensor
    """``(d_model,)``; its length is what scale 1 adds where a scale is in units of the vector."""
    method: str
    """How it was made, such as ``difference_of_means``."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """What it was made from, JSON values."""

    def __post_init__(self) -> None:
        direction = self.direction.detach().to("cpu", torch.float32)
        if direction.ndim != 1 or not direction.numel():
            raise ToolError(f"a vector has shape {tuple(direction.shape)}; it must be (d_model,)")
        if not bool(torch.isfinite(direction).all()):
            raise ToolError(f"the {self.method} vector at {self.site} has NaN or infinite values")
        if float(direction.norm()) == 0:
            raise ToolError(f"the {self.method} vector at {self.site} is 0, so it has no direction")
        object.__setattr__(self, "direction", direction)

    @property
    def unit(self) -> Tensor:
        """The direction at length 1."""
        return torch.nn.functional.normalize(self.direction, dim=0)

    def metadata(self) -> dict[str, Any]:
        """Everything but the numbers, as JSON values."""
        return {
            "site": str(self.site),
            "layer": self.site.layer,
            "method": self.method,
            "norm": float(self.direction.norm()),
            "source": dict(self.source),
        }


def keep_vector(target: Target, vector: Vector) -> str:
    """Keep a vector in the worker; returns its handle's name, the same for the same content.

    Raises:
        ToolError: it has another width than the target's activations.
    """
    check_width(target, vector.direction, what=f"the {vector.method} vector")
    return str(target.handles.put("vector", {"vector": vector.direction}, vector.metadata()))


def kept_direction(target: Target, name: str) -> tuple[Vector, float]:
    """The vector or probe under a handle, and the constant that a probe adds to the dot product (0 for a vector).

    Raises:
        ToolError: there is no such handle, it is neither vector nor probe, or it has another width.
    """
    kind: Literal["vector", "probe"] = "probe" if name.startswith("probe") else "vector"
    handle = target.handles.get(name, kind)
    direction = handle.tensors["weight" if kind == "probe" else "vector"]
    bias = float(handle.tensors["bias"]) if kind == "probe" else 0.0
    check_width(target, direction, what=f"{kind} {name!r}")
    metadata = handle.metadata
    method = str(metadata.get("method", kind))
    vector = Vector(parse_site(str(metadata["site"])), direction, method, {"handle": name})
    return vector, bias


def check_width(target: Target, direction: Tensor, *, what: str) -> None:
    """Raise a ToolError unless a direction fits the target's activations."""
    if tuple(direction.shape) != (target.d_model,):
        raise ToolError(
            f"{what} has shape {tuple(direction.shape)}, the target's activations ({target.d_model},): it was made on "
            "another model; make it anew with steer or probe on this one"
        )
