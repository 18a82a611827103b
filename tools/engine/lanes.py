"""Generating: rows that enter whenever there is room and leave when they end, one token for all of them at a time."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from marple.tools.engine.batches import alike
from marple.tools.engine.edits import EditTable
from marple.tools.engine.jobs import Job
from marple.tools.engine.passes import Pass
from marple.tools.engine.prefixes import Prefix
from marple.tools.engine.reading import Reader, deliver, taps_for
from marple.tools.engine.slots import Slots
from marple.tools.target.sampling import choose_tokens

__all__ = ["Lane", "Steward"]

_Name = tuple[Any, tuple[int, ...]]


class Steward(Protocol):
    """What a lane needs of the engine."""

    batch_tokens: int
    most_rows: int

    @property
    def lock(self) -> AbstractContextManager[Any]:
        """Guards what callers and the driver both touch."""
        ...

    def guarded(self, jobs: Sequence[Job], run: Callable[[], None]) -> None:
        """Run a pass for these jobs; what goes wrong is dealt with."""
        ...

    def finish(self, job: Job) -> None:
        """Hand a job's answer over."""
        ...


class Lane:
    """The rows that are generating on one of the models: the adapted one, or the base beneath the adapter."""

    def __init__(self, reader: Reader, steward: Steward, *, stop_tokens: frozenset[int]) -> None:
        self.rows: list[Job] = []
        self.waiting: list[tuple[int, int, Job]] = []
        """A heap: the most tokens to come first, then who came first."""
        self._reader = reader
        self._steward = steward
        self._stop_tokens = stop_tokens
        self._slots: Slots = reader.new_slots()
        self._table = EditTable(reader.runner.device)
        self._lengths: list[int] = []

    def enter(self, job: Job) -> None:
        """Put a job in line. The longest go first: what is left for the end is short."""
        assert job.request.sampling is not None
        heapq.heappush(self.waiting, (-job.request.sampling.max_new_tokens, job.arrival, job))

    def admit(self) -> None:
        """Read prompts into free rows."""
        entering: list[tuple[Job, Prefix]] = []
        followers: dict[Job, list[Job]] = {}
        leaders: dict[_Name, Job] = {}
        for job in self._take():
            name = (job.key, job.request.prompt)
            known = None if job.reads_prompt else self._reader.prefixes.whole(*name)
            if known is not None and known.hidden is not None:
                entering.append((job, known))
                self._reader.work.prefix_tokens_reused += len(job.request.prompt)
            elif job.reads_prompt or name not in leaders:
                followers[job] = [job]
                if not job.reads_prompt:
                    leaders[name] = job
            else:
                followers[leaders[name]].append(job)
        unread = list(followers)
        while unread:
            for job in unread:
                self._reader.look_up(job)
            batch = alike(unread, Job.remaining_of, budget=self._steward.batch_tokens)
            taken = set(batch)
            unread = [job for job in unread if job not in taken]
            concerned = [job for leader in batch for job in followers[leader]]
            entering += self._prefill(batch, followers, concerned)
        entering = [(job, entry) for job, entry in entering if not job.ticket.finished]
        if entering:
            self._steward.guarded([job for job, _ in entering], lambda: self._begin(entering))

    def _take(self) -> list[Job]:
        admitted: list[Job] = []
        longest = max((job.final_length for job in self.rows), default=0)
        with self._steward.lock:
            while self.waiting:
                job = self.waiting[0][2]
                rows = len(self.rows) + len(admitted) + 1
                longest = max(longest, job.final_length)
                if rows > 1 and (rows > self._steward.most_rows or rows * longest > self._steward.batch_tokens):
                    break
                heapq.heappop(self.waiting)
                admitted.append(job)
        return admitted

    def _prefill(
        self, batch: Sequence[Job], followers: dict[Job, list[Job]], concerned: Sequence[Job]
    ) -> list[tuple[Job, Prefix]]:
        """Read a batch of prompts, each for all jobs that share it."""
        found: list[tuple[Job, Prefix]] = []

        def run() -> None:
            slots = self._reader.group(batch)
            last = self._reader.read(batch, slots=slots, stop_after=None)
            for row, job in enumerate(batch):
                prompt = job.request.prompt
                entry = Prefix(job.key, prompt, slots.take(row, len(prompt)), last[row])
                self._reader.prefixes.add(entry)
                found.extend((follower, entry) for follower in followers[job])

        self._steward.guarded(concerned, run)
        return found if len(found) == len(concerned) else []

    def _begin(self, entering: Sequence[tuple[Job, Prefix]]) -> None:
        """Draw the first token of each and give it a row."""
        jobs, entries = [job for job, _ in entering], [entry for _, entry in entering]
        unique = list({id(entry): entry for entry in entries}.values())
        place = {id(entry): at for at, entry in enumerate(unique)}
        states = torch.stack([entry.hidden for entry in unique if entry.hidden is not None])
        logits = self._reader.head(states)
        chosen, logprobs = self._choose(jobs, logits[[place[id(entry)] for entry in entries]])
        rows, longest = len(self.rows) + len(jobs), max(job.final_length for job in (*self.rows, *jobs))
        if not self.rows and self._slots.is_wasteful(rows, longest):
            self._slots = self._reader.new_slots()
        self._slots.reserve(rows, longest)
        for job, entry, token, logprob in zip(jobs, entries, chosen, logprobs, strict=True):
            if self._emit(job, token, logprob):
                self._steward.finish(job)
                continue
            length = len(job.request.prompt)
            self._slots.put(len(self.rows), entry.stored, length)
            self.rows.append(job)
            self._lengths.append(length)

    def decode(self) -> None:
        """One more token for every row."""
        jobs = self.rows
        windows = [job.window(length, (job.tokens[-1],)) for job, length in zip(jobs, self._lengths, strict=True)]
        spans = [range(length, length + 1) for length in self._lengths]
        taps, owners = taps_for(jobs, spans, generated=True)
        work = Pass(windows, slots=self._slots, taps=taps, table=self._table)
        hidden = self._reader.step(work, adapted=jobs[0].request.adapted)
        chosen, logprobs = self._choose(jobs, self._reader.head(hidden[:, 0]))
        # Only now: a step that runs out of memory before is made again.
        deliver(work, owners)
        ended = []
        for row, (job, token, logprob) in enumerate(zip(list(jobs), chosen, logprobs, strict=True)):
            self._lengths[row] += 1
            if self._emit(job, token, logprob):
                ended.append(row)
        for row in ended:
            self._steward.finish(jobs[row])
        self.free(ended)

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

    def clear(self) -> None:
        """Forget all rows and who is in line."""
        self.rows, self._lengths, self.waiting = [], [], []

    def free(self, rows: Collection[int]) -> None:
        """Take rows out; the last ones move up into their places."""
        for row in sorted(rows, reverse=True):
            last = len(self.rows) - 1
            self._slots.move(last, row, self._lengths[last])
            self.rows[row], self._lengths[row] = self.rows[last], self._lengths[last]
            del self.rows[last], self._lengths[last]
