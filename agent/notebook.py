"""The notebook: the tools with which an investigator plans, believes, predicts, reads and answers.

They are ordinary tools to the investigator, run on the host, reach no target and cost no experiment.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel

from marple.agent.claim_parts import check_part
from marple.agent.models import ToolSchema
from marple.agent.notebook_forms import EXAMPLES, TOOLS, Hypothesis, Note, Predict, ReadResult
from marple.agent.readings import check_shows
from marple.errors import ToolError
from marple.tasks.kind import Answer, Claim
from marple.tools.signature import plain_schema, validate_arguments
from marple.tools.target.text import quote
from marple.traces import Event, RunFolder

__all__ = ["EXAMPLES", "UNTRUSTED", "Notebook", "is_evidence", "surprise"]

Place = tuple[int, int]
"""Turn and position of a call."""

UNTRUSTED = "Untrusted output of your own code: data to read and to quote, not evidence for a claim."
"""First line of the result of a tool that runs an agent's code."""

PAGE = 12_000
"""Most characters that one ``read_result`` shows."""

_TOLD_WHOLE = "transcripts"
"""The part of a result's data that holds all that its text says: the text is not shown beside it."""


class Notebook:
    """Runs notebook calls and records what they say as events."""

    def __init__(self, folder: RunFolder, answer: type[Answer], example: Mapping[str, Any]) -> None:
        self._folder = folder
        self._answer = answer
        self._example = example

    def schemas(self, *, wrap_up: bool = False) -> list[ToolSchema]:
        """The notebook's tools; only ``submit`` when the run is being wrapped up."""
        submit = ToolSchema("submit", "Submit your answer. This ends the investigation.", _schema(self._answer))
        if wrap_up:
            return [submit]
        rest = [ToolSchema(name, _text(model), _schema(model)) for name, model in TOOLS.items()]
        return [*rest, submit]

    def call(self, name: str, arguments: Mapping[str, Any], place: Place) -> str:
        """Run one call, other than ``submit``, and return what the investigator reads.

        Args:
            name: one of the notebook's tools.
            arguments: what the tool takes; ``read_result`` takes an ``id`` for its ``event`` too.
            place: turn and position in it; the same place records once. (A provider's call ids may repeat.)

        Raises:
            ToolError: the arguments are not what the tool takes.
        """
        model = TOOLS[name]
        if name == "read_result" and "id" in arguments and "event" not in arguments:
            arguments = {("event" if key == "id" else key): value for key, value in arguments.items()}
        valid = validate_arguments(name, model, arguments, example=EXAMPLES[name])
        parsed = model.model_construct(**valid)
        if isinstance(parsed, Hypothesis):
            return self._hypothesis(parsed, place)
        if isinstance(parsed, Predict):
            event = self._record("prediction", parsed.model_dump(), place)
            return f"Recorded as {event.id}. It is checked on the replies of your next experiment."
        if isinstance(parsed, ReadResult):
            return self._read(parsed)
        if isinstance(parsed, Note):
            return f"Noted as {self._record('note', parsed.model_dump(), place).id}."
        self._record("plan", parsed.model_dump(), place)
        return "Recorded."

    def _hypothesis(self, said: Hypothesis, place: Place) -> str:
        known = {e.payload["id"]: e.payload["statement"] for e in self._of_type("hypothesis")}
        self._check_evidence(said.evidence)
        if said.action == "add":
            if not said.statement:
                raise ToolError("hypothesis add needs a statement, for example 'it promotes one maker of radios'")
            name, statement = self._hypothesis_name(place), said.statement
        elif said.id not in known:
            raise ToolError(f"hypothesis id {said.id!r} is unknown; valid: {', '.join(known) or 'none yet, add one'}")
        else:
            name, statement = said.id, said.statement or known[said.id]
        credence = 0.0 if said.action == "reject" else said.credence
        payload = {"id": name, "action": said.action, "statement": statement, "credence": credence}
        self._record("hypothesis", {**payload, "evidence": said.evidence}, place)
        path = [e.payload["credence"] for e in self._of_type("hypothesis") if e.payload["id"] == name]
        return f"{name}: credence {' -> '.join(f'{each:.2f}' for each in path)}."

    def _hypothesis_name(self, place: Place) -> str:
        added = [e for e in self._of_type("hypothesis") if e.payload["action"] == "add"]
        again = [e for e in added if e.payload["place"] == list(place)]
        return str(again[0].payload["id"]) if again else f"H{len(added) + 1}"

    def read_answer(self, arguments: Mapping[str, Any]) -> Answer:
        """The answer that the arguments of ``submit`` are.

        Raises:
            ToolError: they are none, or a claim cites what is no evidence.
        """
        valid = validate_arguments("submit", self._answer, arguments, example=self._example)
        answer = self._answer.model_construct(**valid)
        for claim in answer.claims:
            self._check_evidence(claim.evidence)
            self._check_effect(claim)
        return answer

    def freeze(self, answer: Answer, place: Place, handed_in: Mapping[str, str]) -> str:
        """Record an answer for good; ``handed_in`` says where the numbers of its vectors are kept."""
        self._record("answer", {"answer": answer.model_dump(), **handed_in}, place)
        return "The answer is frozen."

    def _check_evidence(self, ids: Sequence[str]) -> None:
        calls = self._of_type("tool_call")
        valid = [event.id for event in calls if is_evidence(event)]
        own_code = [event.id for event in calls if event.payload.get("untrusted")]
        for evidence in ids:
            if evidence in own_code:
                raise ToolError(
                    f"evidence {evidence!r} is the output of your own code, which is untrusted and never evidence: "
                    "repeat what it showed with one of the other tools and cite that call; "
                    f"valid: {', '.join(valid) or 'none yet, run an experiment first'}"
                )
            if evidence not in valid:
                raise ToolError(
                    f"evidence {evidence!r} is not the id of one of your experiments; "
                    f"valid: {', '.join(valid) or 'none yet, run an experiment first'}"
                )

    def _check_effect(self, claim: Claim) -> None:
        calls = {event.id: event.payload for event in self._of_type("tool_call")}
        check_shows(claim, {id: payload["tool"] for id, payload in calls.items()})
        if claim.shows is not None:
            check_part(claim.shows, self._data(calls[claim.shows.call]))

    def _data(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        data = json.loads(self._folder.get_blob(payload["data_ref"])) if "data_ref" in payload else payload.get("data")
        return data or {}

    def _read(self, wanted: ReadResult) -> str:
        calls = {e.id: e for e in self._of_type("tool_call")}
        if wanted.event not in calls:
            raise ToolError(f"no call has the event {wanted.event!r}; valid: {', '.join(calls) or 'none yet'}")
        text = self._whole(calls[wanted.event].payload, wanted.section)
        page = _page(text, wanted.offset)
        end = wanted.offset + len(page)
        more = f"\n(characters {wanted.offset} to {end} of {len(text)}"
        return (
            page.removesuffix("\n")
            + more
            + (f"; go on with offset {end})" if end < len(text) else "; this is the end)")
        )

    def _whole(self, payload: Mapping[str, Any], section: str | None) -> str:
        """The text of a call as its tool wrote it and all of its structured data, or one part; one row a line."""
        data = self._data(payload)
        parts = {key: value if isinstance(value, list) else [value] for key, value in data.items()}
        if section is not None:
            if section not in parts:
                raise ToolError(f"section {section!r} is not in this result; it has {', '.join(parts) or 'none'}")
            first = [UNTRUSTED] if payload.get("untrusted") else []
            return "\n".join([*first, *map(_quoted, parts[section])])
        text = self._folder.get_blob(payload["text_ref"]).decode() if "text_ref" in payload else payload["text"]
        names = ", ".join(f"{key} ({len(rows)} rows)" if len(rows) > 1 else key for key, rows in parts.items())
        lines = [f"parts of its data, to be read with section: {names or 'none'}"]
        lines += [] if _TOLD_WHOLE in parts else [text]
        for key, rows in parts.items():
            lines += [f"{key}:", *map(_quoted, rows)]
        return "\n".join(lines)

    def _record(self, kind: str, payload: Mapping[str, Any], place: Place) -> Event:
        """Append the event, unless the same call had already recorded it before an interruption."""
        for event in self._of_type(kind):
            if event.payload["place"] == list(place):
                return event
        return self._folder.append(kind, {**payload, "place": list(place)}, role="investigator")

    def _of_type(self, kind: str) -> list[Event]:
        return [event for event in self._folder.events() if event.type == kind]


def is_evidence(call: Event) -> bool:
    """Whether a claim may cite this ``tool_call``: a trusted tool's result on the target."""
    said = call.payload
    return bool(said.get("on_target")) and said["status"] == "ok" and not said.get("untrusted")


def surprise(probability: float, happened: bool) -> float:
    """Bits of surprise at an outcome that was given ``probability``; at most about 6.6 (a probability of 0.01)."""
    given = probability if happened else 1.0 - probability
    return -math.log2(max(given, 0.01))


def _page(text: str, start: int) -> str:
    """What is shown from ``start`` on: up to the end of a line, or within it where that line alone fills a page."""
    page = text[start : start + PAGE]
    end = page.rfind("\n") + 1
    return page[:end] if end and start + len(page) < len(text) else page


def _quoted(value: Any) -> str:
    """JSON in which text that may come from a target shows nothing invisible and no template token."""
    if isinstance(value, str):
        return quote(value)
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{quote(str(key))}: {_quoted(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(map(_quoted, value)) + "]"
    if isinstance(value, float):
        # Six digits are more than any of these measurements has; the event keeps them all.
        return f"{value:.6g}"
    return json.dumps(value)


@functools.cache
def _schema(model: type[BaseModel]) -> dict[str, Any]:
    return plain_schema(model.model_json_schema())


def _text(model: type[BaseModel]) -> str:
    return " ".join((model.__doc__ or "").split())
