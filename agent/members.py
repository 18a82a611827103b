"""The members of an ensemble: independent runs of the same case, played before the synthesiser begins."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import json
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from marple.agent.boundary import untrusted_field, view
from marple.agent.draining import Drain
from marple.agent.pooling import pooled_answer
from marple.agent.session import CallProgress, Session
from marple.agent.supervising import pauses_noted
from marple.errors import MarpleError
from marple.tools.visible import quote
from marple.traces import RunFolder

if TYPE_CHECKING:
    from marple.agent.run import RunOutcome

__all__ = ["AT_ONCE", "Member", "MeetsMembers", "PlayMember", "gather_members", "member_seed"]

AT_ONCE = 8
"""Members that play at the same time."""

PlayMember = Callable[[int, str, Drain], Awaitable["RunOutcome"]]
"""Plays a member, by number and run id, from its start or from where it was interrupted."""

_INTRODUCTION = (
    "{told} of {count} members of your group have examined this target on their own and answered. Each line below is "
    "one member's answer as JSON; they may be wrong, and wrong together. Their ids of calls are not yours."
)


@dataclass(frozen=True)
class Member:
    """One run that is over."""

    number: int
    run_id: str
    seed: int
    status: str
    answer: Mapping[str, Any] | None
    usage: Mapping[str, Any]
    calls: Mapping[str, tuple[str, Mapping[str, Any]]] = field(default_factory=dict, repr=False)
    """Tool and arguments of its experiments, by the ids that its claims cite."""

    @classmethod
    def read(cls, number: int, path: Path) -> Member:
        """From a run folder that has a result."""
        folder = RunFolder.open(path)
        result = folder.result or {}
        calls = {
            event.id: (event.payload["tool"], event.payload["arguments"])
            for event in folder.events()
            if event.type == "tool_call" and event.payload.get("on_target") and event.payload["status"] == "ok"
        }
        seed, answer = folder.spec["seed"], result.get("answer")
        return cls(number, folder.run_id, seed, result["status"], answer, result["usage"], calls)

    def to_dict(self) -> dict[str, Any]:
        """What the event has of it."""
        said = {"member": self.number, "run_id": self.run_id, "seed": self.seed, "status": self.status}
        return {**said, "answer": self.answer, "usage": dict(self.usage)}


@runtime_checkable
class MeetsMembers(Protocol):
    """An investigator that goes on from what members found."""

    def meet(self, members: Sequence[Member]) -> None:
        """Take in their runs, before its first turn."""
        ...


def member_seed(seed: int, number: int) -> int:
    """The seed of a member: the first 31 bits of SHA-256 over the ensemble's seed and its number."""
    digest = hashlib.sha256(f"member/{seed}/{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


async def gather_members(session: Session, count: int, play: PlayMember) -> bool:
    """Let the members play, as far as they have not, and record what they answered, once.

    Args:
        session: the ensemble's own run; its investigator is told of them.
        count: how many members.
        play: plays one.

    Returns:
        False when the process was asked to stop before all were through.
    """
    drain, places, through = session.drain or Drain(), asyncio.Semaphore(AT_ONCE), itertools.count(1)
    _tell(session, 0, count)

    async def one(number: int) -> RunOutcome:
        async with places:
            ended = await play(number, f"{session.folder.run_id}-m{number}", drain)
        _tell(session, next(through), count)
        return ended

    with contextlib.nullcontext() if session.drain is not None else drain.on_signals():
        async with pauses_noted(session.folder, lambda: bool(drain.reason)):
            ended = await _all([one(number) for number in range(1, count + 1)])
    if any(each.result is None for each in ended):
        return False
    members = [Member.read(number, each.path) for number, each in enumerate(ended, 1)]
    if isinstance(session.investigator, MeetsMembers):
        session.investigator.meet(members)
    if not session.events("ensemble"):
        session.folder.append("ensemble", _told(session, members))
    return True


async def _all(plays: Sequence[Coroutine[Any, Any, RunOutcome]]) -> list[RunOutcome]:
    """Every member's end; an error of Marple's in one stops the others and is raised as itself."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(play) for play in plays]
    except BaseExceptionGroup as several:
        own = [error for error in several.exceptions if isinstance(error, MarpleError)]
        if own:
            raise own[0] from several
        raise
    return [task.result() for task in tasks]


def _tell(session: Session, done: int, count: int) -> None:
    if session.on_call is not None:
        session.on_call(CallProgress(0, 0, "members", done, count, "through"))


def _told(session: Session, members: Sequence[Member]) -> dict[str, Any]:
    answers = [member.answer for member in members if member.answer is not None]
    field_name = untrusted_field(session.folder.events()[0])
    lines = [
        quote(json.dumps({"member": member.number, **member.answer}, ensure_ascii=False))
        for member in members
        if member.answer is not None
    ]
    said = _INTRODUCTION.format(told=len(answers), count=len(members))
    return {
        "members": [member.to_dict() for member in members],
        "pooled": pooled_answer(answers) if answers else None,
        "text": view({"harness": said}, field_name, lines),
    }
