"""The two JSON documents of a run folder, ``run.json`` and ``result.json``, and the state they tell."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from marple.errors import CorruptTraceError
from marple.traces import lock
from marple.traces.event import Event, check_version

__all__ = ["RunState", "holds", "read_json", "read_spec", "state_of"]

RunState = Literal["running", "done", "interrupted"]


def state_of(path: Path) -> RunState:
    """The state of the run folder at ``path``, from its files alone."""
    if (path / "result.json").exists():
        return "done"
    return "running" if lock.holder(path / "lock") else "interrupted"


def holds(last: Event | None) -> bool:
    """Whether a run whose last event is ``last`` is held between two steps, if it is played at all."""
    return last is not None and last.type == "control" and last.payload.get("did") == "pause"


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a run folder, if this Marple can read it.

    Raises:
        CorruptTraceError: no such file, not a JSON object, or of a newer schema.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise CorruptTraceError(f"{path.parent} is not a run folder: it has no {path.name}") from error
    except OSError as error:
        raise CorruptTraceError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise CorruptTraceError(f"{path} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise CorruptTraceError(f"{path} is not a JSON object")
    check_version(document.get("schema_version"), str(path))
    return document


def read_spec(path: Path) -> dict[str, Any]:
    """The ``run.json`` of the run folder at ``path``.

    Raises:
        CorruptTraceError: it is missing, broken or of a newer schema.
    """
    spec = read_json(path / "run.json")
    if not isinstance(spec.get("run_id"), str):
        raise CorruptTraceError(f"{path / 'run.json'} has no run_id")
    return spec
