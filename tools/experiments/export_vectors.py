"""The numbers of vectors and probes that are kept in the worker, for an answer that hands them in."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from marple.tools.arguments import Text
from marple.tools.contract import ToolResult, tool
from marple.tools.target.target import Target
from marple.tools.vectors.vector import kept_direction

__all__ = ["export_vectors"]


def _self_test() -> None:
    from marple.tools.steering.planted import planted_target
    from marple.tools.vectors.vector import Vector, keep_vector

    planted = planted_target()
    handle = keep_vector(planted.target, Vector(planted.target.site("resid_pre", 0), planted.direction, "planted"))
    found = export_vectors(planted.target, seed=0, handles=[handle]).data["vectors"][handle]
    assert found["values"] == [float(value) for value in planted.direction], "a vector is not exported as it is"


@tool(rung=2, parallel=True, family="steering", self_test=_self_test)
def export_vectors(
    target: Target,
    *,
    seed: int,
    handles: Annotated[list[Text], Field(min_length=1, max_length=32)],
) -> ToolResult:
    """Give the numbers behind handles of vectors and probes, so that they can be used on another worker.

    Args:
        handles: names that results of steer, probe or project gave.

    Returns:
        For each handle its site, its values in float32 and, for a probe, the constant it adds.

    Example:
        {"handles": ["vec-3f9a1c02"]}
    """
    lines, vectors = [], {}
    for name in handles:
        vector, bias = kept_direction(target, name)
        values = vector.direction.tolist()
        vectors[name] = {"site": str(vector.site), "values": values, "bias": bias, "method": vector.method}
        lines.append(f"{name}: {vector.method} at {vector.site}, {len(values)} values")
    return ToolResult(text="\n".join(lines), data={"vectors": vectors})
