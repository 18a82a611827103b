"""Continuous batching: requests of all callers go through the model together; a row that ends makes room at once."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch

from marple.errors import ToolError
from marple.tools.calls import check_cancelled, current_call, report_progress
from marple.tools.engine.architecture import Architecture
from marple.tools.engine.batches import alike
from marple.tools.engine.jobs import Job, Ticket
from marple.tools.engine.lanes import Lane
from marple.tools.engine.passes import Runner
from marple.tools.engine.prefixes import PrefixCache
from marple.tools.engine.reading import Reader, Seed, shared_prefixes
from marple.tools.engine.requests import Output, Request
from marple.tools.engine.results import ResultCache, copied
from marple.tools.engine.work import Work

__all__ = ["Engine"]

_log = logging.getLogger(__name__)

_MOST_ROWS = 256


class Engine:
    """Runs requests on one model, for callers in any number of threads.

    One of the waiting callers drives, step by step, for all; when its own requests are done the next takes over. A
    model belongs to one engine: two would turn each other's adapter on and off.

    Args:
        architecture: the model and its parts.
        stop_tokens: ids that end a sample.
        batch_tokens: most tokens (padding and tokens to come included) in one batch; less after memory ran out.
        prefix_bytes: memory for keys and values of prompts.
        result_bytes: memory for answers.
        chunk: most tokens of one prompt in a pass.
        switch: called with False before the base beneath an adapter runs and with True before the adapted model does.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        stop_tokens: frozenset[int],
        batch_tokens: int,
        prefix_bytes: int = 256 << 20,
        result_bytes: int = 64 << 20,
        chunk: int = 2048,
        switch: Callable[[bool], None] | None = None,
    ) -> None:
        self.work = Work()
        self.batch_tokens = batch_tokens
        self.most_rows = _MOST_ROWS
        self.lock = threading.Condition()
        """Guards what callers and the driver both touch."""
        self.runner = Runner(architecture)
        """Runs single passes; to be used inside ``exclusive`` only."""
        self._results = ResultCache(result_bytes)
        self._prefixes = PrefixCache(prefix_bytes)
        self._reader = Reader(self.runner, self._prefixes, self.work, use=self._use, chunk=chunk)
        self._lanes = {adapted: Lane(self._reader, self, stop_tokens=stop_tokens) for adapted in (True, False)}
        self._keeps_prefixes = prefix_bytes > 0
        self.switch = switch
        """Turns the adapter off and on, where the model has one that is not merged."""
        self._adapted = True
        self._driving = False
        self._arrivals = itertools.count()
        self._singles: list[Job] = []
        self._seeds: list[Seed] = []
        self._abandoned = False
        self._open: dict[int, list[Job]] = {}
        """What callers wait for, by the ticket's identity."""

    # ------------------------------------------------------------------------------- callers

    def run(self, requests: Sequence[Request], *, what: str = "requests") -> list[Output]:
        """One answer for each request, in order.

        Args:
            requests: any mixture.
            what: what they are, for progress.

        Raises:
            MemoryError: a single request does not fit into memory.
            CallCancelled: the call under way was cancelled.
        """
        call = current_call()
        fresh = call is not None and call.fresh
        ticket = Ticket([None] * len(requests), call)
        jobs = self._jobs(requests, ticket, fresh=fresh)
        if jobs:
            with self.lock:
                self._open[id(ticket)] = jobs
                self._enter(jobs)
            try:
                self._wait(ticket, len(requests), what)
            finally:
                with self.lock:
                    del self._open[id(ticket)]
                    ticket.cancelled = ticket.left > 0
                    self._abandoned = self._abandoned or ticket.left > 0
        if ticket.error is not None:
            raise ticket.error
        return [output for output in ticket.outputs if output is not None]

    def stream(self, requests: Iterable[Request], *, ahead: int = 256) -> Iterator[Output]:
        """The answers in order, with never more than ``ahead`` requests in memory."""
        waiting = iter(requests)
        while batch := list(itertools.islice(waiting, ahead)):
            yield from self.run(batch)

    @contextmanager
    def exclusive(self, *, adapted: bool = True) -> Iterator[None]:
        """Keep every pass away meanwhile, for code that runs the model itself; not to be nested.

        Args:
            adapted: with the adapter, if it has one.
        """
        with self.lock:
            while self._driving:
                self.lock.wait(0.1)
            self._driving = True
        try:
            self._use(adapted)
            yield
        finally:
            with self.lock:
                self._driving = False
                self.lock.notify_all()

    def forget(self) -> None:
        """Empty both caches."""
        with self.exclusive():
            self._prefixes.clear()
            self._results.clear()

    def _jobs(self, requests: Sequence[Request], ticket: Ticket, *, fresh: bool) -> list[Job]:
        jobs: dict[Request, Job] = {}
        for place, request in enumerate(requests):
            with self.lock:
                known = None if fresh else self._results.get(request)
            if known is not None:
                ticket.outputs[place] = known
                self.work.cache_hits += 1
            elif request in jobs:
                jobs[request].places.append(place)
                self.work.cache_hits += 1
            else:
                self._check_tokens(request)
                jobs[request] = Job(request, ticket, [place], arrival=next(self._arrivals))
        ticket.left = sum(len(job.places) for job in jobs.values())
        return list(jobs.values())

    def _check_tokens(self, request: Request) -> None:
        vocab = self.runner.architecture.vocab
        low, high = min(request.tokens), max(request.tokens)
        if low < 0 or high >= vocab:
            bad = low if low < 0 else high
            raise ToolError(f"token {bad} does not exist; this model has tokens from 0 to {vocab - 1}")

    def _enter(self, jobs: Sequence[Job]) -> None:
        if self._keeps_prefixes:
            self._seeds += shared_prefixes(jobs)
        for job in jobs:
            self._line_up(job)

    def _line_up(self, job: Job) -> None:
        if job.request.sampling is None:
            self._singles.append(job)
        else:
            self._lanes[job.request.adapted].enter(job)

    def _wait(self, ticket: Ticket, total: int, what: str) -> None:
        """Drive, or wait for whoever drives, until the ticket is done."""
        told = -1
        while not ticket.finished:
            if total - ticket.left != told:
                told = total - ticket.left
                report_progress(told, total, what)
            check_cancelled()
            with self.lock:
                if self._driving:
                    self.lock.wait(0.05)
                    continue
                self._driving = True
            try:
                while not ticket.finished and total - ticket.left == told:
                    try:
                        self._step()
                    except BaseException:
                        self._begin_again()
                        raise
                    check_cancelled()
            finally:
                with self.lock:
                    self._driving = False
                    self.lock.notify_all()
        report_progress(total - ticket.left, total, what)

    # ------------------------------------------------------------------------------- steps

    @torch.no_grad()
    def _step(self) -> None:
        """One pass over waiting prompts, and one token more for every row that is generating."""
        self._drop_abandoned()
        if self._seeds:
            self._read_seed()
        elif self._singles:
            self._read_singles()
        for lane in self._lanes.values():
            if lane.waiting and not self._seeds:
                lane.admit()
            if lane.rows:
                self.guarded(list(lane.rows), lane.decode)

    def _begin_again(self) -> None:
        """A step broke off anywhere, by Ctrl-C for example: what it had in hand is others' too, and begins anew."""
        with self.lock:
            self._singles, self._seeds = [], []
            for lane in self._lanes.values():
                lane.clear()
            for job in itertools.chain.from_iterable(self._open.values()):
                if not job.answered and not job.ticket.finished:
                    job.restart()
                    self._line_up(job)

    def _drop_abandoned(self) -> None:
        """Forget the jobs of callers who have gone."""
        if not self._abandoned:
            return
        with self.lock:
            self._abandoned = False
            self._singles = [job for job in self._singles if not job.ticket.finished]
            self._seeds = [seed for seed in self._seeds if not seed[2].finished]
            for lane in self._lanes.values():
                lane.waiting = [entry for entry in lane.waiting if not entry[2].ticket.finished]
                heapq.heapify(lane.waiting)
        for lane in self._lanes.values():
            lane.free([at for at, job in enumerate(lane.rows) if job.ticket.finished])

    def _read_seed(self) -> None:
        """The next prefix that several prompts share; what needs it waits, and who is generating goes on."""
        with self.lock:
            adapted, tokens, ticket = self._seeds.pop(0)
        try:
            self._reader.seed(adapted, tokens)
        except Exception as error:
            # Without it the prompts are read whole.
            if not _out_of_memory(error):
                ticket.fail(error)
                self._abandoned = True

    def _read_singles(self) -> None:
        """One batch of requests that generate nothing."""
        first = self._singles[0]
        key = (first.request.adapted, first.stop_after)
        ready = [job for job in self._singles if (job.request.adapted, job.stop_after) == key]
        for job in ready:
            self._reader.look_up(job)
        hit = first.prefix is not None
        ready = [job for job in ready if (job.prefix is not None) == hit]
        batch = alike(ready, Job.remaining_of, budget=self.batch_tokens, most=self.most_rows)
        taken = set(map(id, batch))
        with self.lock:
            self._singles = [job for job in self._singles if id(job) not in taken]

        def run() -> None:
            needs_slots = hit or max(job.remaining for job in batch) > self._reader.chunk
            slots = self._reader.group(batch) if needs_slots else None
            self._reader.read(batch, slots=slots, stop_after=first.stop_after)
            for job in batch:
                self.finish(job)

        self.guarded(batch, run)

    def finish(self, job: Job) -> None:
        """Hand a job's answer to its caller."""
        try:
            output = job.output(self.runner.architecture.d_model)
        except Exception as error:
            if _out_of_memory(error):
                raise
            # An encoder of its own: nobody else's affair.
            job.ticket.fail(error)
            self._abandoned = True
            return
        with self.lock:
            job.answered = True
            self._results.add(job.request, output)
            for at, place in enumerate(job.places):
                job.ticket.outputs[place] = copied(output) if at else output
            job.ticket.left -= len(job.places)
            if job.ticket.left == 0:
                self.lock.notify_all()

    def guarded(self, jobs: Sequence[Job], run: Callable[[], None]) -> None:
        """Run a pass; out of memory makes the next batch smaller, any other error ends the callers it concerns."""
        try:
            run()
        except Exception as error:
            if _out_of_memory(error):
                self._shrink(jobs)
                return
            for job in jobs:
                job.ticket.fail(error)
            self._abandoned = True

    def _shrink(self, jobs: Sequence[Job]) -> None:
        """Put the jobs of a batch that did not fit in line again, for half as many rows at a time."""
        if self.runner.device.type == "cuda":
            torch.cuda.empty_cache()
        self._prefixes.clear()
        fewer = len(jobs) // 2
        if not fewer:
            jobs[0].ticket.fail(MemoryError("one request alone does not fit into the device's memory"))
            self._abandoned = True
            return
        self.most_rows = min(self.most_rows, fewer)
        self.batch_tokens = min(self.batch_tokens, fewer * max(job.final_length for job in jobs))
        _log.warning("out of memory with a batch of %d: going on with %d", len(jobs), fewer)
        for owner in {job.ticket for job in jobs}:
            owner.note(f"memory ran out with {len(jobs)} rows at once; it went on with {fewer}")
        again = set(map(id, jobs))
        for lane in self._lanes.values():
            lane.free([at for at, job in enumerate(lane.rows) if id(job) in again])
        with self.lock:
            for job in jobs:
                if not job.answered:
                    job.restart()
                    self._line_up(job)

    def _use(self, adapted: bool) -> None:
        if self.switch is not None and adapted != self._adapted:
            self.switch(adapted)
        self._adapted = adapted


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
