"""What plays the samples of an evaluation: on this machine, or wherever else an executor brings them.

An executor is one module in this folder, ``<name>_executor.py``, with ``make_executor``; it is found without a
registry. It decides where and how many at once. Which sample comes next, when none may start any more, and what is
written down is the queue's, on the machine of the one who asked; `play_sample` plays one of them anywhere: it takes
plain data and a store of workbenches.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from marple.agent.draining import Drain
from marple.agent.evaluation.samples import Job, SampleEnd
from marple.errors import UnknownNameError

__all__ = ["Executor", "ExecutorOptions", "Hear", "JobQueue", "Update", "executors", "open_executor"]


@dataclass(frozen=True)
class Update:
    """Something that happened to a sample; for those who watch, nothing rests on it."""

    job: Job
    what: Literal["start", "step", "end"]
    text: str = ""
    """The last call or event, in one line."""
    end: SampleEnd | None = None
    """With ``end``."""


Hear = Callable[[Update], None]


class JobQueue(Protocol):
    """The samples that wait. Every job that is taken is given back by ``finish``, whatever became of it."""

    def take(self, targets: Collection[str], *, more: bool) -> Job | None:
        """The next job; None when there is none for now, or none may start any more.

        Args:
            targets: the targets (`Sample.organism`) that are held already; a sample on one of them comes first.
            more: whether a sample on another target may be taken.
        """
        ...

    def finish(self, end: SampleEnd) -> None:
        """Write down how a job ended; never raises."""
        ...

    def needs(self, target: str) -> bool:
        """Whether a sample on this target may still be taken or is being played."""
        ...


@dataclass(frozen=True)
class ExecutorOptions:
    """How much at once; an executor may take further options from its own environment."""

    max_parallel: int = 16
    """Runs at once."""
    max_targets: int = 2
    """Targets at once, each with one worker for experiments, one for its control and one for trials."""


class Executor(Protocol):
    """Plays the jobs of a queue."""

    async def execute(self, queue: JobQueue, *, hear: Hear, drain: Drain) -> None:
        """Play until the queue gives no job and none is under way.

        Args:
            queue: where jobs come from and go back to.
            hear: told of what happens.
            drain: when it is asked for, runs stop at their next step, and so does this.
        """
        ...


def executors() -> list[str]:
    """Names of the executors that there are."""
    package = importlib.import_module("marple.agent.evaluation")
    names = (module.name for module in pkgutil.iter_modules(package.__path__))
    return sorted(name.removesuffix("_executor") for name in names if name.endswith("_executor"))


def open_executor(name: str, options: ExecutorOptions) -> Executor:
    """The executor with this name.

    Raises:
        UnknownNameError: there is none.
        UsageError: it lacks something on this machine; says what.
    """
    if name not in executors():
        raise UnknownNameError("executor", name, executors())
    module: Any = importlib.import_module(f"marple.agent.evaluation.{name}_executor")
    opened: Executor = module.make_executor(options)
    return opened
