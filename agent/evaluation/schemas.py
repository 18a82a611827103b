"""The published JSON schemas of the files that a user writes, for editors that check while one types."""

from __future__ import annotations

from importlib import resources

from marple.errors import UnknownNameError

__all__ = ["SCHEMAS", "schema_text"]

SCHEMAS = ("suite", "arms")


def schema_text(name: str) -> str:
    """The schema with this name, ``suite`` or ``arms``.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in SCHEMAS:
        raise UnknownNameError("schema", name, SCHEMAS)
    return resources.files("marple.agent.evaluation").joinpath(f"{name}.schema.json").read_text(encoding="utf-8")
