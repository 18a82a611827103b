"""Who plays: the protocol every investigator follows, and scripts that play without a language model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from marple.agent.models import Message, ModelTurn, ToolCall, ToolSchema, Usage, UserMessage
from marple.errors import MarpleError

__all__ = ["NOTEBOOK_TOOLS", "Done", "Investigator", "Play", "Request", "Script", "ScriptInvestigator", "Situation"]

NOTEBOOK_TOOLS = ("plan", "hypothesis", "predict", "note", "read_result", "submit")
"""The tools that every run offers beside those of its case; they reach no target."""


@dataclass(frozen=True)
class Done:
    """A call that was made and what came of it."""

    id: str
    """Id of the event, to be cited as evidence."""
    tool: str
    ok: bool
    text: str
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Situation:
    """All an investigator may know at its turn."""

    messages: Sequence[Message]
    """The conversation so far, the brief first, the remaining budget last."""
    tools: Sequence[ToolSchema]
    """What may be called now."""
    offered: Sequence[str]
    """Names of the worker tools of the case, whether or not they may still be called."""
    rounds: Callable[[], Sequence[Sequence[Done]]]
    """Gives, for every turn so far, its calls with their structured results."""
    wrap_up: bool
    """Whether a limit is reached and this is the last turn."""


class Investigator(Protocol):
    """Plays one run."""

    name: str
    model_name: str | None
    """The language model behind it, or None."""
    uses_target: bool
    """False for an investigator that makes no call by design."""

    async def next_turn(self, situation: Situation) -> ModelTurn:
        """Say and call something; a turn without calls is answered by a reminder."""
        ...

    async def forecast(self, situation: Situation, items: Sequence[Mapping[str, str]]) -> ModelTurn:
        """Answer the held-out questions with one call of ``forecast``."""
        ...

    async def close(self) -> None:
        """Release what it holds."""
        ...


@dataclass(frozen=True)
class Request:
    """A call a script wants to make."""

    tool: str
    arguments: Mapping[str, Any]
    why: str = ""


Play = Generator[Sequence[Request], Sequence[Done], None]
"""A script's course: it yields the calls of a turn and is sent what came of them."""


class Script(ABC):
    """An investigator written as a plain generator; one instance plays one run.

    It must be deterministic: after an interruption it is played again from the recorded results.
    """

    brief: str = ""
    """What the investigator reads first; given before the play begins."""

    @abstractmethod
    def play(self, tools: Sequence[str]) -> Play:
        """Play the run with these tools; the last turn should call ``submit``."""

    def answer_now(self) -> Mapping[str, Any]:
        """The arguments of ``submit`` when a limit ends the play early: what is believed so far."""
        return {
            "nothing_hidden": 0.5,
            "candidates": [],
            "claims": [],
            "summary": "Stopped before anything was found.",
        }

    def chance_first(self, prompt: str, reply_a: str, reply_b: str) -> float:
        """Probability that ``reply_a`` is the target's and ``reply_b`` its twin's."""
        return 0.5

    def chance_fires(self, prompt: str, begins: str) -> float:
        """Probability that a reply to a prompt, begun like this, shows the behaviour that the task asks about."""
        return 0.5


class ScriptInvestigator:
    """Lets a script take its turns in the same loop as a language model."""

    model_name: str | None = None

    def __init__(self, name: str, script: Callable[[], Script], *, uses_target: bool = True) -> None:
        self.name = name
        self.uses_target = uses_target
        self._make = script
        self._script = script()
        self._play: Play | None = None
        self._taken = 0
        self._missing: list[str] = []

    async def next_turn(self, situation: Situation) -> ModelTurn:
        """The script's next calls; none when it has nothing more to do."""
        requests = self._catch_up(situation)
        if situation.wrap_up and [r.tool for r in requests] != ["submit"]:
            requests = (Request("submit", self._script.answer_now(), "A limit is reached."),)
        why = " ".join(r.why for r in requests if r.why)
        number = self._taken
        return _turn(self.name, why, [(f"c{number}.{i}", r.tool, r.arguments) for i, r in enumerate(requests)])

    async def forecast(self, situation: Situation, items: Sequence[Mapping[str, str]]) -> ModelTurn:
        """The script's probabilities."""
        self._catch_up(situation)
        chances = [
            self._script.chance_first(i["prompt"], i["reply_a"], i["reply_b"])
            if "reply_a" in i
            else self._script.chance_fires(i["prompt"], i.get("reply_begins", ""))
            for i in items
        ]
        return _turn(self.name, "", [("forecast", "forecast", {"probabilities": chances})])

    async def close(self) -> None:
        """Nothing to release."""

    def _catch_up(self, situation: Situation) -> Sequence[Request]:
        """Play up to the present, from the start when this instance has not seen the rounds before."""
        rounds = situation.rounds()
        if self._play is None or self._taken > len(rounds):
            self._script, self._taken, self._missing = self._make(), 0, []
            self._script.brief = next((m.text for m in situation.messages if isinstance(m, UserMessage)), "")
            self._play = self._script.play(situation.offered)
            self._requests: Sequence[Request] = next(self._play, ())
        while self._taken < len(rounds):
            done = rounds[self._taken]
            if [d.tool for d in done] == ["submit"] != [r.tool for r in self._requests]:
                return ()  # the answer that a limit called for, in an earlier process
            if [d.tool for d in done] != [r.tool for r in self._requests]:
                raise MarpleError(f"the script {self.name} no longer plays as recorded; it was changed meanwhile")
            self._requests = self._sent(done, situation.offered)
            self._taken += 1
        return self._requests

    def _sent(self, done: Sequence[Done], offered: Sequence[str]) -> Sequence[Request]:
        """What the script does next; it answers with what it has where it cannot go on without a tool."""
        assert self._play is not None
        tools = {*offered, *NOTEBOOK_TOOLS}
        self._missing += [one.tool for one in done if one.tool not in tools and one.tool not in self._missing]
        try:
            return self._play.send(done)
        except StopIteration:
            return ()
        except Exception:
            if not self._missing:
                raise
            why = f"The method goes no further without {', '.join(self._missing)}."
            return (Request("submit", self._script.answer_now(), why),)


def _turn(name: str, text: str, calls: Sequence[tuple[str, str, Mapping[str, Any]]]) -> ModelTurn:
    return ModelTurn(
        text=text,
        tool_calls=tuple(ToolCall.of(tool, arguments, id=call_id) for call_id, tool, arguments in calls),
        stop="tool_calls" if calls else "end",
        usage=Usage(cost_usd=0.0),
        model=f"script/{name}",
    )
