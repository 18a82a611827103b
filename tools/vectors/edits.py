"""Edits of activations as data: what an investigator tries and hands in, and what the scorer applies."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, NotRequired

import torch
from pydantic import ConfigDict, Field, with_config

# pydantic needs this one before Python 3.12; it is the same class.
from typing_extensions import TypedDict

from marple.errors import ToolError
from marple.tools.engine.interventions import Intervention, Op, Phase
from marple.tools.vectors.vector import check_width, kept_direction

if TYPE_CHECKING:
    from marple.tools.target.target import Target

__all__ = ["Edit", "Edits", "interventions_of"]


@with_config(ConfigDict(extra="forbid"))
class Edit(TypedDict):
    """One edit of the activations, with the vector under a handle or with its numbers."""

    vector: NotRequired[Annotated[str, Field(description="Handle of a vector or probe.")]]
    values: NotRequired[Annotated[list[float], Field(description="Instead: the vector's numbers.", max_length=65_536)]]
    layer: Annotated[int, Field(description="From 0, negative from the last.")]
    site: NotRequired[
        Annotated[str, Field(description="resid_pre, resid_mid, resid_post (default), attn_out or mlp_out.")]
    ]
    op: NotRequired[
        Annotated[
            Op,
            Field(
                description="add (default; scale times the vector), norm_add (relative to the activation), ablate "
                "(scale 1 projects it out), clamp (the projection becomes scale) or replace."
            ),
        ]
    ]
    scale: NotRequired[Annotated[float, Field(description="Default 1.")]]
    phases: NotRequired[
        Annotated[list[Literal["prompt", "generation"]], Field(min_length=1, description="Default both.")]
    ]


Edits = Annotated[list[Edit], Field(max_length=16)]


def interventions_of(target: Target, edits: list[Edit]) -> tuple[Intervention, ...]:
    """The engine's form of edits.

    Raises:
        ToolError: not exactly one of ``vector`` and ``values`` is given, a handle is unknown, a width or layer is not
            the target's, or a number is not finite.
    """
    return tuple(_intervention(target, edit, number) for number, edit in enumerate(edits, start=1))


def _intervention(target: Target, edit: Edit, number: int) -> Intervention:
    name, values = edit.get("vector"), edit.get("values")
    if (name is None) == (values is None):
        raise ToolError(
            f'edit {number} needs either "vector", a handle such as "vec-3f9a1c02", or "values", the numbers themselves'
        )
    if name is not None:
        direction = kept_direction(target, name)[0].direction
    else:
        direction = torch.tensor(values, dtype=torch.float32)
        check_width(target, direction, what=f"the vector of edit {number}")
    phases: tuple[Phase, ...] = tuple(edit.get("phases", ("prompt", "generation")))
    return Intervention(
        target.site(edit.get("site", "resid_post"), edit["layer"]),
        direction,
        op=edit.get("op", "add"),
        scale=edit.get("scale", 1.0),
        phases=phases,
    )
