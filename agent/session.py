"""Everything one run holds in memory; what must survive a crash is in its events instead."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from marple.agent.approval import Approver
from marple.agent.draining import Drain
from marple.agent.history import messages_from_events
from marple.agent.investigator import Done, Investigator, Situation
from marple.agent.ledger import Used, exceeded_limit, used_by
from marple.agent.models import ModelTurn, ToolSchema
from marple.agent.notebook import Notebook, is_evidence
from marple.agent.prompt_writing import BankWriter, PromptWriter, with_hint
from marple.agent.workbench import Workbench
from marple.tasks.budget import Budget
from marple.tasks.case import Case
from marple.tasks.forecasts import FireItem, ForecastItem
from marple.traces import Event, RunFolder

if TYPE_CHECKING:
    from marple.tasks.organisms import Organism

__all__ = ["CallProgress", "Session"]


@dataclass(frozen=True)
class CallProgress:
    """How far a call under way is."""

    turn: int
    index: int
    """Its place in the turn."""
    tool: str
    done: int
    total: int
    what: str
    """What is counted, such as prompts."""


@dataclass
class Session:
    """The parts of a running investigation and the questions its nodes ask of the event log."""

    case: Case
    folder: RunFolder
    investigator: Investigator
    bench: Workbench | None
    """None for an investigator that makes no call by design."""
    budget: Budget
    seed: int
    approve: Approver
    forecast_items: Sequence[ForecastItem] = ()
    fire_items: Sequence[FireItem] = ()
    organism: Organism | None = None
    """What the target is, for what is measured of the answer; never shown."""
    context_tokens: int | None = None
    """Tokens that the investigator's window holds; None for one that has none."""
    writer: PromptWriter = field(default_factory=BankWriter)
    """Writes the prompts of a `battery` with a hint."""
    gather: Callable[[], Awaitable[bool]] | None = None
    """Plays the members of an ensemble; False when the process was asked to stop meanwhile."""
    on_call: Callable[[CallProgress], None] | None = None
    """Told of the progress of calls; nothing of it is recorded."""
    drain: Drain | None = None
    """Asks the run to stop at its next step; None leaves that to signals of the process."""

    def __post_init__(self) -> None:
        self.notebook = Notebook(self.folder, self.case.kind.answer, self.case.kind.example)
        self._starts_known = 0

    def note_starts(self, *, first: bool = False) -> None:
        """Record the workers that were started since the last look; the first of a run is told of in ``run_start``."""
        if self.bench is None:
            return
        starts = self.bench.starts
        new, self._starts_known = starts[self._starts_known :], len(starts)
        for start in new:
            if not first and start.owner in (None, self.folder.run_id):
                self.folder.append("worker_start", {"worker": start.worker, "stamp": dict(start.stamp)})

    def events(self, kind: str) -> list[Event]:
        """The events of one type so far."""
        return [event for event in self.folder.events() if event.type == kind]

    def experiments(self) -> list[Event]:
        """The calls that ran on the target, those that failed included, and code of the agent's on its copy."""
        return [event for event in self.events("tool_call") if event.payload.get("on_target")]

    def measurements(self) -> list[Event]:
        """The calls of trusted tools on the target that gave a result: all that can be evidence."""
        return [event for event in self.experiments() if is_evidence(event)]

    def used(self) -> Used:
        """What is used of the budget by now."""
        return used_by(self.folder.events(), now=time.time())

    def limit_reached(self) -> str | None:
        """Name of the limit that the run has reached, as recorded or as counted now."""
        recorded = self.events("limit")
        return recorded[0].payload["limit"] if recorded else exceeded_limit(self.budget, self.used())

    @property
    def wrapping_up(self) -> bool:
        """Whether a limit has been announced."""
        return bool(self.events("limit"))

    def model_call(self, turn: int, purpose: str = "investigate") -> Event | None:
        """The recorded model call of a turn, when it has been made."""
        for event in self.events("model_call"):
            if event.payload["turn_number"] == turn and event.payload["purpose"] == purpose:
                return event
        return None

    def results(self, turn: int) -> dict[int, Event]:
        """The recorded tool calls of a turn by their place in it."""
        return {e.payload["index"]: e for e in self.events("tool_call") if e.payload["turn_number"] == turn}

    def worker_tools(self) -> list[ToolSchema]:
        """The tools that the case allows and that the workers can run."""
        if self.bench is None:
            return []
        there = {**self.bench.tools, **self.bench.code_tools}
        offered = [there[name] for name in self.case.affordances if name in there]
        return [
            with_hint(ToolSchema(tool.name, f"{tool.description}\n\nRung {tool.rung}.", dict(tool.parameters)))
            for tool in offered
            if self.case.has_reference or "reference" not in tool.needs
        ]

    def situation(self) -> Situation:
        """What the investigator may know now."""
        wrap_up = self.wrapping_up
        tools = self.notebook.schemas(wrap_up=wrap_up)
        return Situation(
            messages=messages_from_events(self.folder.events(), self.budget),
            tools=tools if wrap_up else [*self.worker_tools(), *tools],
            offered=[tool.name for tool in self.worker_tools()],
            rounds=self.rounds,
            wrap_up=wrap_up,
        )

    def rounds(self) -> list[list[Done]]:
        """Every turn's calls so far with their structured results."""
        turns: dict[int, dict[int, Done]] = {}
        for event in self.folder.events():
            if event.type == "model_call" and event.payload["purpose"] == "investigate":
                turns.setdefault(event.payload["turn_number"], {})
            elif event.type == "tool_call":
                turns[event.payload["turn_number"]][event.payload["index"]] = self._done(event)
        return [[calls[index] for index in sorted(calls)] for calls in turns.values()]

    def _done(self, event: Event) -> Done:
        payload = event.payload
        return Done(event.id, payload["tool"], payload["status"] == "ok", payload["text"], self.result_data(payload))

    def result_data(self, payload: Mapping[str, Any]) -> Mapping[str, Any]:
        """The structured data of a recorded tool call."""
        data: Mapping[str, Any] = payload.get("data", {})
        if "data_ref" in payload:
            data = json.loads(self.folder.get_blob(payload["data_ref"]))
        return data

    def turn_of(self, event: Event) -> ModelTurn:
        """The model's turn in a recorded model call."""
        return ModelTurn.from_dict(event.payload["turn"])
