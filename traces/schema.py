"""The published JSON Schema (2020-12) of a run folder's documents and of the lines of its logs."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

__all__ = ["load_schema"]


def load_schema() -> dict[str, Any]:
    """The schema; its ``$defs`` ``run``, ``event``, ``result`` and ``control_request`` describe the documents."""
    text = resources.files("marple.traces").joinpath("schema.json").read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
