"""An old run scored again, from its events and the truth as it is now; nothing is run again.

What comes of it is ``rescored.json`` beside ``result.json``, which stays as it is.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from marple.agent.configuration import RunConfig
from marple.agent.investigator import Situation
from marple.agent.models import ModelTurn
from marple.agent.run import session_of
from marple.agent.scoring import scores_of
from marple.agent.session import Session
from marple.errors import UnknownNameError, UsageError
from marple.tasks.materials import Materials, prepare
from marple.traces import RunFolder
from marple.traces.durable import write_atomic

__all__ = ["FILE", "rescore", "session_again", "write_rescored"]

FILE = "rescored.json"
"""Name of the file in the run folder."""


class _Gone:
    """Stands for the investigator of a run that is over."""

    def __init__(self, spec: Mapping[str, Any]) -> None:
        self.name = str(spec.get("investigator"))
        self.model_name: str | None = spec.get("model")
        self.uses_target = self.name != "prior"

    async def next_turn(self, situation: Situation) -> ModelTurn:
        raise AssertionError("a run that is scored again is not played")

    async def forecast(self, situation: Situation, items: Sequence[Mapping[str, str]]) -> ModelTurn:
        raise AssertionError("a run that is scored again is not played")

    async def close(self) -> None:
        """Nothing to release."""


def session_again(folder: RunFolder) -> tuple[Session, Materials]:
    """The session of a run that is over, and what its case is scored with.

    Raises:
        UsageError: the run is not done, has no answer, its case is gone, or its organism is not what it was.
    """
    if folder.result is None:
        raise UsageError(f"the run {folder.run_id} is not done; go on with: marple resume {folder.path}")
    if not any(event.type == "answer" for event in folder.events()):
        raise UsageError(f"the run {folder.run_id} ended as {folder.result['status']}, without an answer to score")
    try:
        config = RunConfig.from_spec(folder.spec, runs=folder.path.parent)
    except UnknownNameError as error:
        raise UsageError(f"the run {folder.run_id} cannot be scored again, its case is gone: {error}") from error
    case = config.case
    # A model of the user's own may be gone by now, and nothing is asked of it.
    materials = prepare(case) if case.organism is not None else Materials(None, truth=case.truth)
    session = session_of(config, folder, _Gone(folder.spec), materials)
    _check_items(session)
    return session, materials


def rescore(folder: RunFolder) -> dict[str, Any]:
    """Score a run again.

    Returns:
        What `write_rescored` writes: who and what it was, ``status``, and the scores ``then`` and ``now``; the same
        for the same run and code.

    Raises:
        UsageError: it cannot be scored.
    """
    session, materials = session_again(folder)
    result = folder.result
    assert result is not None
    try:
        scores = scores_of(session, materials.truth, result["status"])
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"the answer of {folder.run_id} is not one of kind {session.case.kind.name} any more: "
            f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
        ) from error
    return {
        "run_id": folder.run_id,
        "case": session.case.id,
        "investigator": result["investigator"],
        "status": result["status"],
        "comparability": {"then": result.get("comparability"), "now": session.case.kind.comparability},
        "scores": {"then": result["scores"], "now": scores},
    }


def write_rescored(folder: RunFolder, document: Mapping[str, Any]) -> Path:
    """Write the document beside the result, in the same bytes for the same document.

    Raises:
        StorageError: the disk refused it.
    """
    path = folder.path / FILE
    write_atomic(path, (json.dumps(document, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode())
    return path


def _check_items(session: Session) -> None:
    """Refuse to score forecasts on other questions than were asked."""
    drawn = {
        "replies": [item.shown() for item in session.forecast_items],
        "fires": [item.shown() for item in session.fire_items],
    }
    for event in session.events("forecast"):
        said = event.payload
        if "items" in said and said["items"] != drawn[said.get("round", "replies")]:
            raise UsageError(
                f"the held-out prompts of {session.case.id} are not those that the run {session.folder.run_id} was "
                "asked about: its organism has been built anew since"
            )
