"""Playing an evaluation: what its folder does not have yet, and nothing twice."""

from __future__ import annotations

import asyncio
import contextlib
import fnmatch
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marple.agent.configuration import RunConfig
from marple.agent.draining import Drain
from marple.agent.evaluation.executor import Executor, ExecutorOptions, Hear, open_executor
from marple.agent.evaluation.folder import EvaluationFolder
from marple.agent.evaluation.plan import Plan
from marple.agent.evaluation.queue import SampleQueue, without_finished
from marple.agent.evaluation.sample_log import SampleLog
from marple.agent.evaluation.samples import Job, Sample, config_of
from marple.agent.evaluation.totals import Spent, TotalBudget
from marple.agent.investigator import Investigator
from marple.agent.investigators import Options, open_investigator
from marple.agent.models import PRICES_VARIABLE, load_prices
from marple.errors import UsageError
from marple.sandboxes import choose_backend

__all__ = ["Evaluated", "EvaluationOptions", "chosen", "evaluate", "prepare"]


@dataclass(frozen=True)
class EvaluationOptions:
    """How a command plays a plan; none of it changes what a sample is."""

    executor: str = "local"
    limits: ExecutorOptions = ExecutorOptions()
    budget: TotalBudget = TotalBudget()
    only: str | None = None
    """A pattern of samples; None for all."""
    retry_errors: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON values, as the log of samples keeps them."""
        budget = {name: limit for name, limit in self.budget.to_dict().items() if limit is not None}
        return {
            "executor": self.executor,
            **vars(self.limits),
            "budget": budget,
            "only": self.only,
            "retry_errors": self.retry_errors,
        }


@dataclass(frozen=True)
class Evaluated:
    """How an evaluation stands when a command lets go of it."""

    path: Path
    statuses: Mapping[str, int]
    """How many of the chosen samples ended how; ``not_run`` and ``interrupted`` among them."""
    samples: int
    """How many were chosen."""
    scored: int
    unfinished: int
    """How many have no result; the same command plays them."""
    not_run: Sequence[tuple[Sample, str]]
    """What was not started, and why."""
    stopped_arms: Mapping[str, str]
    stopped: str
    """Why nothing was started any more; empty where everything was."""
    spent: Spent
    interrupted: bool
    """Whether it was asked to stop."""


@dataclass(frozen=True)
class Prepared:
    """What a command would do."""

    plan: Plan
    folder: EvaluationFolder
    samples: Sequence[Sample]
    """The grid, or what was chosen of it."""
    left: Sequence[Sample]
    """What is to be played of it."""
    log: SampleLog
    options: EvaluationOptions
    executor: Executor


def prepare(plan: Plan, out: Path, options: EvaluationOptions) -> Prepared:
    """See that everything that is to be played can be; nothing is written and nothing started.

    Raises:
        UsageError: the folder is another's, a name is unknown, a key or a price is missing, or nothing is chosen.
        SandboxUnavailableError: no isolation backend works here.
    """
    folder = EvaluationFolder(out)
    folder.check(plan)
    executor = open_executor(options.executor, options.limits)
    samples = chosen(plan.samples(), options.only)
    log = folder.log()
    left = without_finished(samples, log, retry_errors=options.retry_errors)
    _check_playable(left, options.budget)
    return Prepared(plan, folder, samples, left, log, options, executor)


def chosen(samples: Sequence[Sample], pattern: str | None) -> list[Sample]:
    """The samples whose ``ARM/KIND/TARGET/EPOCH`` has the pattern somewhere in it.

    Raises:
        UsageError: none has.
    """
    if pattern is None:
        return list(samples)
    found = [sample for sample in samples if fnmatch.fnmatchcase(sample.name, f"*{pattern}*")]
    if not found:
        raise UsageError(
            f"--only {pattern!r} fits none of the {len(samples)} samples; they are named ARM/KIND/TARGET/EPOCH, such "
            f"as {samples[0].name}, and a pattern may have * and ?"
        )
    return found


async def evaluate(prepared: Prepared, *, hear: Hear, drain: Drain) -> Evaluated:
    """Play what is left.

    Args:
        prepared: what `prepare` gave.
        hear: told of what happens to each sample.
        drain: asks everything to stop at its next step.

    Raises:
        UsageError: another process plays the folder.
        StorageError: the folder or the log cannot be written; nothing was started.
    """
    folder, options = prepared.folder, prepared.options
    with folder.held(prepared.plan), _begun(prepared) as log:
        left = without_finished(prepared.samples, log, retry_errors=options.retry_errors)
        queue = SampleQueue(left, log=log, runs=folder.runs, budget=options.budget)
        with drain.on_signals():
            await prepared.executor.execute(queue, hear=hear, drain=drain)
        return _stand(prepared, log, queue, interrupted=bool(drain.reason))


@contextlib.contextmanager
def _begun(prepared: Prepared) -> Iterator[SampleLog]:
    log = prepared.folder.log()  # read again, now that no other process writes it
    log.begin(prepared.options.to_dict())
    try:
        yield log
    finally:
        log.close()


def _stand(prepared: Prepared, log: SampleLog, queue: SampleQueue, *, interrupted: bool) -> Evaluated:
    statuses: Counter[str] = Counter()
    scored = unfinished = 0
    for sample in prepared.samples:
        state = log.states.get(sample.key)
        end = None if state is None else state.end
        statuses[end.status if end is not None else "not_run" if state is None else "interrupted"] += 1
        scored += bool(end is not None and end.scored)
        unfinished += end is None or not end.finished
    return Evaluated(
        prepared.folder.path,
        statuses,
        len(prepared.samples),
        scored,
        unfinished,
        queue.not_run(),
        dict(queue.stopped_arms),
        queue.stopped,
        queue.spent,
        interrupted,
    )


def _check_playable(samples: Sequence[Sample], budget: TotalBudget) -> None:
    """Open every investigator once, as it will be opened for the runs."""
    seen: set[tuple[str, str]] = set()
    opened: list[Investigator] = []
    for sample in samples:
        if (sample.arm.name, sample.kind) not in seen:
            seen.add((sample.arm.name, sample.kind))
            config = config_of(Job(sample, "", ""))
            _check_price(sample, config, budget)
            if config.case.endpoints is None:
                choose_backend(config.sandbox)
            opened.append(open_investigator(config.investigator, _options(config)))
    if opened:
        # Their connections are closed on an event loop; whoever calls this may be on one.
        with ThreadPoolExecutor(1) as thread:
            thread.submit(asyncio.run, _close(opened)).result()


def _options(config: RunConfig) -> Options:
    return Options(config.case.kind, config.model, config.base_url, config.effort)


async def _close(investigators: Sequence[Investigator]) -> None:
    for investigator in investigators:
        await investigator.close()


def _check_price(sample: Sample, config: RunConfig, budget: TotalBudget) -> None:
    limit = budget.cost if budget.cost is not None else config.budget.cost
    ends = config.case.endpoints
    paid = (config.model, config.auxiliary, *((ends.target, ends.reference) if ends is not None else ()))
    unknown = [name for name in paid if name is not None and name not in load_prices(None)]
    if limit is not None and unknown:
        raise UsageError(
            f"the arm {sample.arm.name} on {sample.case}: budget cost={limit} needs the price of {unknown[0]}; list it "
            f"in {PRICES_VARIABLE}"
        )
