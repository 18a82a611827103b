"""One game: a run whose investigator sits outside, played move by move.

The run is the same as every other one (loop, budget, approval, trace, forecasts, replication, scorer); a game only
hands the player's calls to the seat and waits until the loop asks again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from marple.agent.configuration import RunConfig
from marple.agent.games.seat import Seat
from marple.agent.history import messages_from_events
from marple.agent.models import AssistantMessage, ToolCall
from marple.agent.run import RunOutcome, Watcher, launch, resume
from marple.agent.session import CallProgress
from marple.agent.workbench import Workbench
from marple.errors import ToolError, UsageError
from marple.traces import RunFolder

if TYPE_CHECKING:
    from marple.tasks.organisms import Progress

__all__ = ["Game", "Phase", "for_outside"]

Phase = Literal["starting", "investigate", "wrap_up", "forecast", "over", "interrupted"]
"""``wrap_up``: a limit is reached and only ``submit`` is taken; ``forecast``: the answer is frozen and the held-out
questions wait; ``interrupted``: put aside, to be gone on with."""


_NO_WINDOW = 10**9
"""Tokens that no conversation has: what an outside player remembers is theirs to keep, and nothing is told in short."""


def for_outside(config: RunConfig, budget: str | None) -> RunConfig:
    """A configuration for a player whose turns and tokens are not seen here: these have no limit unless one is typed.

    Args:
        config: as for any other investigator.
        budget: the limits that were typed, such as ``calls=20``.
    """
    unseen = replace(config.case.budget, turns=None, tokens=None)
    return replace(config, budget=unseen.with_text(budget), context_tokens=_NO_WINDOW)


class Game(Watcher):
    """A run in progress, and the moves of its player, one at a time.

    Args:
        config: what is played.
        seat: where the player's turns arrive.
        building: told the stages of building a target, from another thread.
        bench: a workbench that holds the target already, shared and left open; None starts one for this run.
    """

    def __init__(
        self,
        config: RunConfig,
        seat: Seat,
        *,
        building: Callable[[str], None] | None = None,
        bench: Workbench | None = None,
    ) -> None:
        self.config = config
        self.seat = seat
        self.folder: RunFolder | None = None
        self._on_progress: Callable[[CallProgress], None] | None = None
        self.under_way: Sequence[str] = ()
        """The tools of a move that is being made."""
        self._building = building
        self._bench = bench
        self._play: asyncio.Task[RunOutcome] | None = None
        self._moving = asyncio.Lock()

    @classmethod
    def again(cls, path: Path, seat: Seat, *, bench: Workbench | None = None) -> Game:
        """A game that goes on with the run in a folder; ``begin`` is given the same folder."""
        return cls(RunConfig.from_spec(RunFolder.open(path).spec, runs=path.parent), seat, bench=bench)

    async def begin(self, path: Path | None = None) -> None:
        """Start the run, or go on with the one in ``path``, until its player is asked something or it is over.

        Raises:
            MarpleError: it could not be started.
        """
        if path is None:
            play = launch(self.config, investigator=self.seat, watcher=self, bench=self._bench)
        else:
            play = resume(path, investigator=self.seat, watcher=self, bench=self._bench)
        self._play = asyncio.create_task(play)
        await self._until_asked()
        self.outcome()

    async def move(
        self,
        calls: Sequence[ToolCall],
        *,
        why: str = "",
        on_progress: Callable[[CallProgress], None] | None = None,
    ) -> None:
        """Make calls, as one turn, and wait until they are made and the player is asked again, or the run is over.

        Moves that come at the same time are made one after the other. A move whose first call has the id of the last
        one made is that same move, sent again, and is not made twice.

        Args:
            calls: at least one.
            why: what the player says of them.
            on_progress: told how far they are.

        Raises:
            ToolError: they cannot be taken now; nothing was recorded.
            UsageError: the run is over.
        """
        async with self._moving:
            await self._until_asked()
            if self._made(calls):
                return
            if self.phase in ("over", "interrupted"):
                raise UsageError(f"the run {self.run_id} is {self.phase}; no call is taken")
            self._check(calls)
            self._on_progress, self.under_way = on_progress, [call.name for call in calls]
            self.seat.give(calls, why)
            await self._until_asked()
            self._on_progress, self.under_way = None, ()
            self.outcome()

    async def stop(self) -> None:
        """Let go of the run; it stands interrupted unless it is over."""
        if self._play is not None:
            self._play.cancel()
            await asyncio.wait({self._play})

    def outcome(self) -> RunOutcome | None:
        """How the run ended; None while it is played or when it was stopped.

        Raises:
            MarpleError: it broke off.
        """
        if self._play is None or not self._play.done() or self._play.cancelled():
            return None
        return self._play.result()

    @property
    def run_id(self) -> str:
        """The run's id; '' before there is one."""
        return self.folder.run_id if self.folder else ""

    @property
    def phase(self) -> Phase:
        """Where the game stands."""
        if self._play is None:
            return "starting"
        if self._play.done():
            broken = self._play.cancelled() or self._play.exception() is not None
            return "interrupted" if broken or self._play.result().result is None else "over"
        if self.seat.questions is not None:
            return "forecast"
        if self.seat.situation is None:
            return "starting"
        return "wrap_up" if self.seat.situation.wrap_up else "investigate"

    # ------------------------------------------------------------------------------------------ as a watcher

    def launched(self, folder: RunFolder) -> None:
        """Keep the folder."""
        self.folder = folder

    def on_call(self, call: CallProgress) -> None:
        """Pass it on."""
        if self._on_progress is not None:
            self._on_progress(call)

    def progress(self) -> Progress | None:
        """Where building an organism reports to."""
        return None if self._building is None else _Stages(self._building)

    # ------------------------------------------------------------------------------------------ moves

    async def _until_asked(self) -> None:
        """Wait until a turn is waited for, or the run is over."""
        assert self._play is not None
        asked = asyncio.create_task(self.seat.asked.wait())
        try:
            await asyncio.wait({asked, self._play}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            asked.cancel()

    def _made(self, calls: Sequence[ToolCall]) -> bool:
        assert self.folder is not None
        messages = messages_from_events(self.folder.events(), self.config.budget)
        turns = [message.turn for message in messages if isinstance(message, AssistantMessage)]
        return bool(turns and turns[-1].tool_calls) and turns[-1].tool_calls[0].id == calls[0].id

    def _check(self, calls: Sequence[ToolCall]) -> None:
        """Refuse what cannot be a turn now."""
        questions, situation = self.seat.questions, self.seat.situation
        names = [call.name for call in calls]
        if questions is not None:
            if names != ["forecast"]:
                raise ToolError(f"{names[0]} cannot be called any more: the answer is frozen; {_want(len(questions))}")
            _check_forecast(calls[0].arguments, len(questions))
        elif "forecast" in names:
            raise ToolError("forecast is called after the answer, when the held-out questions are there; submit first")
        elif situation is not None and situation.wrap_up:
            offered = [tool.name for tool in situation.tools]
            if unfit := [name for name in names if name not in offered]:
                raise ToolError(f"{unfit[0]} cannot be called any more: a limit is reached; call {', '.join(offered)}")


class _Stages:
    """The stages of a build, in words."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say

    def stage(self, name: str, total: int) -> None:
        """Say which stage begins."""
        self._say(name)

    def advance(self, done: int, note: str = "") -> None:
        """Nothing to say."""


def _check_forecast(arguments: Mapping[str, Any] | None, count: int) -> None:
    """Refuse probabilities that are not one number from 0 to 1 for each question."""
    given = (arguments or {}).get("probabilities")
    if not isinstance(given, list) or set(arguments or ()) != {"probabilities"}:
        keys = ", ".join(arguments or ()) or "nothing"
        raise ToolError(f"forecast takes probabilities, a list of numbers, and got {keys}; {_want(count)}")
    if len(given) != count:
        raise ToolError(f"there are {count} questions and {len(given)} probabilities; {_want(count)}")
    for place, value in enumerate(given, start=1):
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise ToolError(f"probability {place} is {value!r}, not a number from 0 to 1; {_want(count)}")


def _want(count: int) -> str:
    return f'call forecast with {{"probabilities": [...]}}, {count} numbers from 0 to 1 in the order of the questions'
