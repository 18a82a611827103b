"""What a tool returned, as it goes into the event log: short parts in the event, long ones as blobs, all bounded."""

from __future__ import annotations

import json
from typing import Any

from marple.tools.contract import ToolResult
from marple.traces import RunFolder

__all__ = ["RESULT_LIMIT", "RUN_BYTES", "recorded"]

RESULT_LIMIT = 16 * 1024
"""Characters of a result's text that the event holds and the investigator is shown; ``read_result`` shows the rest."""

LINE_LIMIT = 4000
"""Characters of one of its lines."""

RUN_BYTES = 512 * 2**20
"""Bytes of blobs that the results of one run may fill; what comes later is left out, and the event says so."""

_INLINE_DATA = 2048
_INLINE_CONTROLS = 64 * 1024
_HANDLES = 200


def recorded(folder: RunFolder, result: ToolResult, *, run_bytes: int = RUN_BYTES) -> dict[str, Any]:
    """The fields of a ``tool_call`` event that hold a result.

    Args:
        folder: the run's folder; long parts become blobs in it.
        result: what the tool returned.
        run_bytes: what the blobs of all results of the run may fill.

    Returns:
        ``text`` (its beginning where it is long; then ``characters`` and ``bytes`` are the size of the whole and
        ``text_ref`` holds it), ``data`` or ``data_ref``, ``controls``, ``cost``, ``handles``, ``artifacts``,
        ``stored_bytes``, and where the run's share is used up ``left_out``: each part that was not kept, and its bytes.
    """
    parts = _Parts(folder, run_bytes - _stored(folder))
    payload: dict[str, Any] = {
        "text": result.text,
        "cost": vars(result.cost),
        "handles": list(result.handles)[:_HANDLES],
    }
    beginning = _beginning(result.text)
    if beginning != result.text:
        whole = result.text.encode(errors="backslashreplace")
        payload |= {"text": beginning, "characters": len(result.text), "bytes": len(whole)}
        payload |= parts.put("text_ref", whole, "text/plain")
    for name, value, inline in (("data", result.data, _INLINE_DATA), ("controls", result.controls, _INLINE_CONTROLS)):
        text = json.dumps(value, ensure_ascii=False)
        if len(text) <= inline:
            payload[name] = dict(value)
        else:
            payload |= parts.put(f"{name}_ref", text.encode(errors="backslashreplace"), "application/json")
    payload["artifacts"] = [
        {"name": a.name, "media_type": a.media_type, **parts.put("ref", a.data, a.media_type, what=a.name)}
        for a in result.artifacts
    ]
    return payload | parts.told()


def _beginning(text: str) -> str:
    """What is shown at once; one huge token does not crowd out the lines that follow it."""
    kept, room = [], RESULT_LIMIT
    for line in text.split("\n"):
        if room <= 0:
            break
        cut = min(LINE_LIMIT, room)
        kept.append(line if len(line) <= cut else f"{line[:cut]} (+{len(line) - cut:,} characters)")
        room -= min(len(line), cut) + 1
    return "\n".join(kept)


def _stored(folder: RunFolder) -> int:
    return sum(event.payload.get("stored_bytes", 0) for event in folder.events() if event.type == "tool_call")


class _Parts:
    """Puts long parts into blobs for as long as the run has room."""

    def __init__(self, folder: RunFolder, room: int) -> None:
        self._folder = folder
        self._room = room
        self._stored = 0
        self._left_out: list[dict[str, Any]] = []

    def put(self, name: str, data: bytes, media_type: str, *, what: str = "") -> dict[str, str]:
        """The field with the blob's reference; none where it does not fit any more."""
        if len(data) > self._room - self._stored:
            self._left_out.append({"name": what or name.removesuffix("_ref"), "bytes": len(data)})
            return {}
        self._stored += len(data)
        return {name: self._folder.put_blob(data, media_type)}

    def told(self) -> dict[str, Any]:
        """How much was put away, and what was not."""
        return {"stored_bytes": self._stored} | ({"left_out": self._left_out} if self._left_out else {})
