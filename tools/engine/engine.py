"""Continuous batching: requests of all callers go through the model together; a row that ends makes room at once."""

from __future__ import annotations

import heapq
import itertools
import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from marple.tools.calls import check_cancelled, current_call, report_progress
from marple.tools.engine.architecture import Architecture
from marple.tools.engine.batches import alike, common_prefix
from marple.tools.engine.edits import EditTable
from marple.tools.engine.jobs import Job, Ticket
from marple.tools.engine.passes import Pass, Runner, Tap
from marple.tools.engine.prefixes import Prefix, PrefixCache
from marple.tools.engine.requests import Output, Request
from marple.tools.engine.results import ResultCache
from marple.tools.engine.slots import Slots
from marple.tools.target.sampling import choose_tokens

__all__ = ["Engine", "Work"]

_log = logging.getLogger(__name__)

_CHUNK = 2048
_HEAD_ELEMENTS = 1 << 25
_SHARED_TOKENS = 32
_SHARED_ROWS = 4
_USEFUL_PREFIX = 16


@dataclass
class Work:
    """What the engine has done so far."""

    forwards: int = 0
    """Passes through the model."""
    prompt_tokens: int = 0
    """Tokens of prompts and continuations that were computed."""
    generated_tokens: int = 0
    """Tokens computed one at a time while generating."""
    layer_tokens: int = 0
    """Tokens times layers they went through."""
    head_rows: int = 0
    """Positions whose logits were computed."""
    prefix_tokens_reused: int = 0
    """Tokens that were known from a prefix."""
    cache_hits: int = 0
    """Requests answered from the result cache, or along with an equal one."""


@dataclass(eq=False)
class _Lane:
    """The rows that are generating on one of the models: the adapted one, or the base beneath the adapter."""

    adapted: bool
    slots: Slots
    table: EditTable
    rows: list[Job] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    waiting: list[tuple[int, int, Job]] = field(default_factory=list)


class Engine:
    """Runs requests on one model, for callers in any number of threads.

    One of the waiting callers drives, step by step, for all; when its own requests are done the next takes over.

    Args:
        architecture: the model and its parts.
        stop_tokens: ids that end a sample.
        batch_tokens: most tokens (padding and tokens to come included) in one batch; less after memory ran out.
        prefix_bytes: memory for keys and values of prompts.
        result_bytes: memory for answers.
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
        switch: Callable[[bool], None] | None = None,
    ) -> None:
        self.work = Work()
        self.batch_tokens = batch_tokens
        self.most_rows = 256
        self._stop_tokens = stop_tokens
        self._runner = Runner(architecture)
        self._prefixes = PrefixCache(prefix_bytes)
        self._results = ResultCache(result_bytes)
        self._switch = switch
        self._adapted = True
        self._condition = threading.Condition()
        self._driving = False
        self._arrivals = itertools.count()
        self._singles: list[Job] = []
        self._seeds: list[tuple[bool, tuple[int, ...], Ticket]] = []
        self._abandoned = False
        device, layers = self._runner.device, len(architecture.layers)
        self._lanes = {it: _Lane(it, Slots(layers, device), EditTable(device)) for it in (True, False)}

    @property
    def runner(self) -> Runner:
        """What runs single passes; use it inside ``exclusive`` only."""
        return self._runner

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
            with self._condition:
                self._enter(jobs)
            try:
                self._wait(ticket, len(requests), what)
            finally:
                with self._condition:
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
        with self._condition:
            while self._driving:
                self._condition.wait(0.1)
            self._driving = True
        try:
            self._use(adapted)
            yield
        finally:
            with self._condition:
                self._driving = False
                self._condition.notify_all()

    def forget(self) -> None:
        """Empty both caches."""
        with self.exclusive():
            self._prefixes.clear()
            self._results.clear()

    def _jobs(self, requests: Sequence[Request], ticket: Ticket, *, fresh: bool) -> list[Job]:
        jobs: dict[Request, Job] = {}
        for place, request in enumerate(requests):
            with self._condition:
                known = None if fresh else self._results.get(request)
            if known is not None:
                ticket.outputs[place] = known
                self.work.cache_hits += 1
            elif request in jobs:
                jobs[request].places.append(place)
                self.work.cache_hits += 1
            else:
                jobs[request] = Job(request, ticket, [place], arrival=next(self._arrivals))
        ticket.left = sum(len(job.places) for job in jobs.values())
        return list(jobs.values())

    def _enter(self, jobs: Sequence[Job]) -> None:
        self._seeds += _shared_prefixes(jobs)
        for job in jobs:
            self._requeue(job)

    def _requeue(self, job: Job) -> None:
        sampling = job.request.sampling
        if sampling is None:
            self._singles.append(job)
        else:
            # The longest first: what is left for the end is short.
            lane = self._lanes[job.request.adapted]
            heapq.heappush(lane.waiting, (-sampling.max_new_tokens, job.arrival, job))

    def _wait(self, ticket: Ticket, total: int, what: str) -> None:
        """Drive, or wait for whoever drives, until the ticket is done."""
        told = -1
        while not ticket.finished:
            if total - ticket.left != told:
                told = total - ticket.left
                report_progress(told, total, what)
            check_cancelled()
            with self._condition:
                if self._driving:
                    self._condition.wait(0.05)
                    continue
                self._driving = True
            try:
                while not ticket.finished and total - ticket.left == told:
                    self._step()
                    check_cancelled()
            finally:
                with self._condition:
                    self._driving = False
                    self._condition.notify_all()
        report_progress(total - ticket.left, total, what)

    # ------------------------------------------------------------------------------- steps

    @torch.no_grad()
    def _step(self) -> None:
        """One pass over waiting prompts, and one token more for every row that is generating."""
        self._drop_abandoned()
        if self._seeds:
            with self._condition:
                seeds, self._seeds = self._seeds, []
            for adapted, tokens, ticket in seeds:
                self._guarded([], lambda a=adapted, t=tokens: self._seed(a, t), ticket=ticket)  # type: ignore[misc]
        if self._singles:
            self._run_singles()
        for lane in self._lanes.values():
            if lane.waiting:
                self._admit(lane)
            if lane.rows:
                rows = list(lane.rows)
                self._guarded(rows, lambda lane=lane: self._decode(lane), lane=lane)  # type: ignore[misc]

    def _drop_abandoned(self) -> None:
        """Forget the jobs of callers who have gone."""
        if not self._abandoned:
            return
        with self._condition:
            self._abandoned = False
            self._singles = [job for job in self._singles if not job.ticket.finished]
            self._seeds = [seed for seed in self._seeds if not seed[2].finished]
            for lane in self._lanes.values():
                lane.waiting = [entry for entry in lane.waiting if not entry[2].ticket.finished]
                heapq.heapify(lane.waiting)
        for lane in self._lanes.values():
            self._free(lane, [at for at, job in enumerate(lane.rows) if job.ticket.finished])

    def _guarded(
        self, jobs: Sequence[Job], run: Callable[[], None], *, lane: _Lane | None = None, ticket: Ticket | None = None
    ) -> None:
        """Run a pass; out of memory makes the next batch smaller, any other error ends the callers it concerns."""
        try:
            run()
        except Exception as error:
            if not _out_of_memory(error) or (not jobs and ticket is None):
                for owner in {job.ticket for job in jobs} | ({ticket} if ticket else set()):
                    owner.fail(error)
                self._abandoned = True
                return
            self._shrink(jobs, lane)

    def _shrink(self, jobs: Sequence[Job], lane: _Lane | None) -> None:
        if self._runner.device.type == "cuda":
            torch.cuda.empty_cache()
        if not jobs:
            return
        if len(jobs) == 1:
            jobs[0].ticket.fail(MemoryError("one request alone does not fit into the device's memory"))
            self._abandoned = True
            return
        fewer = len(jobs) // 2
        self.batch_tokens = fewer * max(job.final_length for job in jobs)
        self.most_rows = min(self.most_rows, fewer)
        _log.warning("out of memory with a batch of %d: going on with %d", len(jobs), fewer)
        for owner in {job.ticket for job in jobs}:
            owner.note(f"memory ran out with {len(jobs)} rows at once; it went on with {fewer}")
        if lane is not None:
            jobs = jobs[fewer:]
        again = set(map(id, jobs))
        for each in self._lanes.values():
            self._free(each, [at for at, job in enumerate(each.rows) if id(job) in again])
        with self._condition:
            for job in jobs:
                job.restart()
                self._requeue(job)

    def _use(self, adapted: bool) -> None:
        if self._switch is not None and adapted != self._adapted:
            self._switch(adapted)
        self._adapted = adapted

    # ------------------------------------------------------------------------------- reading prompts

    def _seed(self, adapted: bool, tokens: tuple[int, ...]) -> None:
        """Read a prefix that many prompts share, so that it is read once."""
        key = (adapted, ())
        known = self._prefixes.longest(key, tokens, len(tokens))
        if known is not None and known[1] == len(tokens):
            return
        job = Job(Request(tokens, adapted=adapted), Ticket([], None), [])
        job.prefix = known
        slots = self._group([job])
        self._read([job], slots=slots, stop_after=None)
        self._prefixes.add(Prefix(key, tokens, slots.take(0, len(tokens)), None))

    def _look_up(self, job: Job) -> None:
        """Find how much of a job's prompt is known."""
        if job.looked:
            return
        job.looked = True
        prompt = job.request.prompt
        found = [self._prefixes.longest(job.key, prompt, job.limit)]
        clean = (job.request.adapted, ())
        if job.key != clean:
            found.append(self._prefixes.longest(clean, prompt, min(job.limit, job.clean_limit)))
        useful = [one for one in found if one is not None and one[1] >= _USEFUL_PREFIX]
        job.prefix = max(useful, key=lambda one: one[1], default=None)

    def _run_singles(self) -> None:
        first = self._singles[0]
        key = (first.request.adapted, first.stop_after)
        for job in (ready := [job for job in self._singles if (job.request.adapted, job.stop_after) == key]):
            self._look_up(job)
        hit = first.prefix is not None
        ready = [job for job in ready if (job.prefix is not None) == hit]
        batch = alike(ready, lambda job: job.remaining, budget=self.batch_tokens, most=self.most_rows)
        taken = set(map(id, batch))
        with self._condition:
            self._singles = [job for job in self._singles if id(job) not in taken]

        def run() -> None:
            needed = hit or max(job.remaining for job in batch) > _CHUNK
            slots = self._group(batch) if needed else None
            self._read(batch, slots=slots, stop_after=first.stop_after)
            for job in batch:
                self._finish(job)

        self._guarded(batch, run)

    def _group(self, jobs: Sequence[Job]) -> Slots:
        """Memory for the keys and values of a few rows, with what is known put in."""
        slots = Slots(len(self._runner.architecture.layers), self._runner.device, grain=1)
        slots.reserve(len(jobs), max(len(job.request.tokens) for job in jobs))
        for row, job in enumerate(jobs):
            if job.prefix is not None:
                slots.put(row, job.prefix[0].stored, job.start)
                self.work.prefix_tokens_reused += job.start
        return slots

    def _read(self, jobs: Sequence[Job], *, slots: Slots | None, stop_after: int | None) -> list[Tensor | None]:
        """Read the rest of each job's prompt and continuation; returns the last final hidden state of each."""
        self._use(jobs[0].request.adapted)
        last: list[Tensor | None] = [None] * len(jobs)
        table = EditTable(self._runner.device)
        done = 0
        longest = max(job.remaining for job in jobs)
        while done < longest:
            step = min(_CHUNK, longest - done) if slots is not None else longest
            windows, spans = [], []
            for job in jobs:
                start = job.start + done
                tokens = job.request.tokens[start : start + step]
                windows.append(job.window(start, tokens))
                spans.append(range(start, start + len(tokens)))
            taps, owners = _taps(jobs, spans)
            work = Pass(windows, slots=slots, taps=taps, stop_after=stop_after, table=table)
            hidden = self._runner.run(work)
            self._count(spans, stop_after)
            _deliver(work, owners)
            if hidden is not None:
                self._score(jobs, spans, hidden, last)
            done += step
        return last

    def _count(self, spans: Sequence[range], stop_after: int | None) -> None:
        layers = len(self._runner.architecture.layers) if stop_after is None else stop_after
        tokens = sum(map(len, spans))
        self.work.forwards += 1
        self.work.prompt_tokens += tokens
        self.work.layer_tokens += tokens * layers

    def _score(self, jobs: Sequence[Job], spans: Sequence[range], hidden: Tensor, last: list[Tensor | None]) -> None:
        """Log-probabilities and logits that the jobs asked for, out of a pass's final hidden states."""
        rows: list[int] = []
        columns: list[int] = []
        places: list[tuple[Job, int]] = []
        for row, (job, span) in enumerate(zip(jobs, spans, strict=True)):
            if span.stop == len(job.request.tokens) and len(span):
                last[row] = hidden[row, len(span) - 1]
            if job.request.sampling is not None and not job.request.continuation:
                continue
            for at in job.head_positions:
                if at in span:
                    rows.append(row)
                    columns.append(at - span.start)
                    places.append((job, at))
        if not rows:
            return
        picked = hidden[torch.tensor(rows, device=hidden.device), torch.tensor(columns, device=hidden.device)]
        size = max(1, _HEAD_ELEMENTS // self._runner.architecture.vocab)
        for first in range(0, len(rows), size):
            logits = self._runner.architecture.head(picked[first : first + size]).float()
            self.work.head_rows += len(logits)
            _keep_scores(places[first : first + size], logits)

    # ------------------------------------------------------------------------------- generating

    def _admit(self, lane: _Lane) -> None:
        """Read prompts into free rows."""
        admitted = self._take(lane)
        known: dict[tuple[Any, tuple[int, ...]], Prefix] = {}
        unread: list[Job] = []
        for job in admitted:
            name = _name(job)
            entry = known.get(name) or self._prefixes.whole(*name)
            if entry is not None and entry.hidden is not None and not job.reads_prompt:
                known[name] = entry
                self.work.prefix_tokens_reused += len(job.request.prompt)
            elif job.reads_prompt or all(name != _name(other) for other in unread):
                unread.append(job)
        while unread:
            for job in unread:
                self._look_up(job)
            batch = alike(unread, lambda job: job.remaining, budget=self.batch_tokens)
            taken = set(map(id, batch))
            unread = [job for job in unread if id(job) not in taken]
            names = set(map(_name, batch))
            concerned = [job for job in admitted if _name(job) in names]
            self._guarded(concerned, lambda batch=batch: known.update(self._prefill(batch)))  # type: ignore[misc]
        entering = [job for job in admitted if _name(job) in known and not job.ticket.finished]
        if entering:
            self._guarded(entering, lambda: self._begin(lane, entering, known))

    def _take(self, lane: _Lane) -> list[Job]:
        admitted: list[Job] = []
        longest = max((job.final_length for job in lane.rows), default=0)
        with self._condition:
            while lane.waiting:
                job = lane.waiting[0][2]
                rows = len(lane.rows) + len(admitted) + 1
                longest = max(longest, job.final_length)
                if rows > 1 and (rows > self.most_rows or rows * longest > self.batch_tokens):
                    break
                heapq.heappop(lane.waiting)
                admitted.append(job)
        return admitted

    def _prefill(self, jobs: Sequence[Job]) -> dict[tuple[Any, tuple[int, ...]], Prefix]:
        slots = self._group(jobs)
        last = self._read(jobs, slots=slots, stop_after=None)
        found = {}
        for row, job in enumerate(jobs):
            prompt = job.request.prompt
            entry = Prefix(job.key, prompt, slots.take(row, len(prompt)), last[row])
            self._prefixes.add(entry)
            found[_name(job)] = entry
        return found

    def _begin(self, lane: _Lane, jobs: Sequence[Job], known: dict[tuple[Any, tuple[int, ...]], Prefix]) -> None:
        entries = [known[_name(job)] for job in jobs]
        unique = list({id(entry): entry for entry in entries}.values())
        place = {id(entry): at for at, entry in enumerate(unique)}
        states = torch.stack([entry.hidden for entry in unique if entry.hidden is not None])
        logits = self._runner.architecture.head(states).float()
        self.work.head_rows += len(unique)
        chosen, logprobs = self._choose(jobs, logits[[place[id(entry)] for entry in entries]])
        rows, longest = len(lane.rows) + len(jobs), max(job.final_length for job in (*lane.rows, *jobs))
        if not lane.rows and lane.slots.is_wasteful(rows, longest):
            lane.slots = Slots(len(self._runner.architecture.layers), self._runner.device)
        lane.slots.reserve(rows, longest)
        for job, entry, token, logprob in zip(jobs, entries, chosen, logprobs, strict=True):
            if self._emit(job, token, logprob):
                self._finish(job)
                continue
            length = len(job.request.prompt)
            lane.slots.put(len(lane.rows), entry.stored, length)
            lane.rows.append(job)
            lane.lengths.append(length)

    def _decode(self, lane: _Lane) -> None:
        """One more token for every row."""
        self._use(lane.adapted)
        jobs = lane.rows
        windows = [job.window(length, (job.tokens[-1],)) for job, length in zip(jobs, lane.lengths, strict=True)]
        spans = [range(length, length + 1) for length in lane.lengths]
        taps, owners = _taps(jobs, spans, generated=True)
        work = Pass(windows, slots=lane.slots, taps=taps, table=lane.table)
        hidden = self._runner.run(work)
        assert hidden is not None
        _deliver(work, owners)
        self.work.forwards += 1
        self.work.generated_tokens += len(jobs)
        self.work.layer_tokens += len(jobs) * len(self._runner.architecture.layers)
        self.work.head_rows += len(jobs)
        chosen, logprobs = self._choose(jobs, self._runner.architecture.head(hidden[:, 0]).float())
        ended = []
        for row, (job, token, logprob) in enumerate(zip(list(jobs), chosen, logprobs, strict=True)):
            lane.lengths[row] += 1
            if self._emit(job, token, logprob):
                ended.append(row)
        for row in ended:
            self._finish(jobs[row])
        self._free(lane, ended)

    def _choose(self, jobs: Sequence[Job], logits: Tensor) -> tuple[list[int], list[float | None]]:
        samplings = [job.request.sampling for job in jobs]
        heat = [sampling.temperature for sampling in samplings if sampling]
        if any(heat):
            draws = torch.stack([job.draws[len(job.tokens)] for job in jobs]).to(torch.float64)
            mass = torch.tensor([sampling.top_p for sampling in samplings if sampling], dtype=torch.float64)
            chosen = choose_tokens(
                logits, draws.to(logits.device), temperature=torch.tensor(heat, dtype=torch.float64), top_p=mass
            )
        else:
            chosen = logits.argmax(dim=-1)
        if not any(job.request.logprobs for job in jobs):
            return chosen.tolist(), [None] * len(jobs)
        picked = torch.log_softmax(logits, dim=-1).gather(-1, chosen.unsqueeze(-1)).squeeze(-1)
        return chosen.tolist(), [
            value if job.request.logprobs else None for job, value in zip(jobs, picked.tolist(), strict=True)
        ]

    def _emit(self, job: Job, token: int, logprob: float | None) -> bool:
        """Note a row's next token; whether the row has ended."""
        sampling = job.request.sampling
        assert sampling is not None
        if logprob is not None:
            job.logprobs.append(logprob)
        if token in self._stop_tokens:
            job.finish = "stop"
            return True
        job.tokens.append(token)
        return len(job.tokens) >= sampling.max_new_tokens

    def _free(self, lane: _Lane, rows: Collection[int]) -> None:
        """Take rows out; the last ones move up into their places."""
        for row in sorted(rows, reverse=True):
            last = len(lane.rows) - 1
            lane.slots.move(last, row, lane.lengths[last])
            lane.rows[row], lane.lengths[row] = lane.rows[last], lane.lengths[last]
            del lane.rows[last], lane.lengths[last]

    def _finish(self, job: Job) -> None:
        output = job.output()
        with self._condition:
            self._results.add(job.request, output)
            for place in job.places:
                job.ticket.outputs[place] = output
            job.ticket.left -= len(job.places)
            if job.ticket.left == 0:
                self._condition.notify_all()


def _name(job: Job) -> tuple[Any, tuple[int, ...]]:
    """What a prompt's keys and values are known by."""
    return (job.key, job.request.prompt)


def _shared_prefixes(jobs: Sequence[Job]) -> list[tuple[bool, tuple[int, ...], Ticket]]:
    """Prefixes that several of a caller's prompts begin with and that no edit touches."""
    groups: dict[tuple[bool, tuple[int, ...]], list[Job]] = defaultdict(list)
    for job in jobs:
        clean = min(job.limit, job.clean_limit)
        if clean >= _SHARED_TOKENS:
            groups[job.request.adapted, job.request.prompt[:_SHARED_TOKENS]].append(job)
    found = []
    for (adapted, _), group in groups.items():
        prompts = {job.request.prompt for job in group}
        singles = sum(job.request.sampling is None for job in group)
        # Samples of one prompt share it anyway.
        if len(prompts) + (singles if len(prompts) == 1 else 0) >= _SHARED_ROWS:
            length = min(common_prefix(list(prompts)), max(min(job.limit, job.clean_limit) for job in group))
            found.append((adapted, group[0].request.prompt[:length], group[0].ticket))
    return found


def _taps(
    jobs: Sequence[Job], spans: Sequence[range], *, generated: bool = False
) -> tuple[list[Tap], list[list[tuple[Job, int, int]]]]:
    """One tap for each place that is read, and to whose captures its tokens go, how many each."""
    wanted: dict[tuple[Any, bool], tuple[list[int], list[int], list[tuple[Job, int, int]], Any]] = {}
    for row, (job, span) in enumerate(zip(jobs, spans, strict=True)):
        for index, capture in enumerate(job.request.captures):
            if generated:
                inside: Sequence[int] = span if capture.positions == "generated" else ()
            else:
                positions = job.positions(capture)
                inside = _overlap(positions, span)
            if not inside:
                continue
            key = (capture.site.place, capture.before_edits)
            rows, columns, owners, _ = wanted.setdefault(key, ([], [], [], capture.site))
            rows.extend([row] * len(inside))
            columns.extend(
                range(inside[0] - span.start, inside[-1] + 1 - span.start)
                if isinstance(inside, range)
                else [at - span.start for at in inside]
            )
            owners.append((job, index, len(inside)))
    taps, owned = [], []
    width = max(map(len, spans))
    for (_, before), (rows, columns, owners, site) in wanted.items():
        whole = len(rows) == len(spans) * width and len(owners) == len(spans) and len(jobs) == len(owners)
        taps.append(
            Tap(site, before, tuple(rows), tuple(columns), is_whole=whole and columns == [*range(width)] * len(spans))
        )
        owned.append(owners)
    return taps, owned


def _overlap(positions: Sequence[int], span: range) -> Sequence[int]:
    if isinstance(positions, range):
        return range(max(positions.start, span.start), min(positions.stop, span.stop))
    return [at for at in positions if at in span]


def _deliver(work: Pass, owned: Sequence[Sequence[tuple[Job, int, int]]]) -> None:
    for tap, owners in zip(work.taps, owned, strict=True):
        parts = torch.split(work.read[tap], [count for _, _, count in owners])
        for (job, index, _), part in zip(owners, parts, strict=True):
            job.chunks[index].append(part)


def _keep_scores(places: Sequence[tuple[Job, int]], logits: Tensor) -> None:
    following = [job.request.tokens[at + 1] if at + 1 < len(job.request.tokens) else 0 for job, at in places]
    if any(job.request.logprobs for job, _ in places):
        index = torch.tensor(following, device=logits.device).unsqueeze(-1)
        values = torch.log_softmax(logits, dim=-1).gather(-1, index).squeeze(-1).tolist()
    else:
        values = [0.0] * len(places)
    for row, ((job, at), value) in enumerate(zip(places, values, strict=True)):
        if at + 1 < len(job.request.tokens):
            job.logprobs.append(value)
        elif job.request.logits:
            job.logits = logits[row].cpu().clone()


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
