"""Edits of activations as JSON data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field

from marple.errors import ToolError
from marple.tools.engine.interventions import Intervention, Op, Phase

if TYPE_CHECKING:
    from marple.tools.target.target import Target

__all__ = ["InterventionSpec"]


class InterventionSpec(BaseModel):
    """An ``Intervention`` as JSON, the vector named by its handle; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)

    vector: Annotated[str, Field(min_length=1, max_length=100)]
    """Handle of a vector kept in the worker."""
    site: str = "resid_post"
    """A site's name together with ``layer``, or any full name such as ``blocks.2.hook_resid_post``."""
    layer: int | None = None
    op: Op = "add"
    scale: Annotated[float, Field(allow_inf_nan=False)] = 1.0
    phases: Annotated[list[Phase], Field(min_length=1, max_length=2)] = ["prompt", "generation"]
    positions: list[int] | None = None
    exclude_positions: list[int] = []
    tokens: list[int] | None = None
    exclude_tokens: list[int] = []
    generation_window: Annotated[list[int | None], Field(min_length=2, max_length=2)] | None = None

    def resolve(self, target: Target) -> Intervention:
        """The edit on this target.

        Raises:
            ToolError: the site, the layer or the handle is unknown, the vector has another width, or the
                window is not ``[start, stop]`` with ``0 <= start < stop``.
        """
        window = None
        if self.generation_window is not None:
            start, stop = self.generation_window
            if start is None or start < 0 or (stop is not None and stop <= start):
                raise ToolError(f"generation_window is {self.generation_window}; give [start, stop] such as [0, 8]")
            window = (start, stop)
        handle = target.handles.get(self.vector, "vector")
        return target.checked(
            Intervention(
                site=target.site(self.site, self.layer),
                vector=handle.tensors["vector"],
                op=self.op,
                scale=self.scale,
                phases=tuple(self.phases),
                positions=None if self.positions is None else tuple(self.positions),
                exclude_positions=tuple(self.exclude_positions),
                tokens=None if self.tokens is None else tuple(self.tokens),
                exclude_tokens=tuple(self.exclude_tokens),
                generation_window=window,
            )
        )
