"""Reading prompts: what is known from a prefix is put in place, the rest goes through the model together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from marple.tools.engine.batches import common_prefix
from marple.tools.engine.edits import EditTable
from marple.tools.engine.jobs import Job, Ticket
from marple.tools.engine.passes import Pass, Runner, Tap
from marple.tools.engine.prefixes import Prefix, PrefixCache
from marple.tools.engine.requests import Request
from marple.tools.engine.slots import Slots
from marple.tools.engine.work import Work

__all__ = ["Reader", "Seed", "deliver", "shared_prefixes", "taps_for"]

_HEAD_ELEMENTS = 1 << 25
_SHARED_TOKENS = 32
_SHARED_ROWS = 4
_USEFUL_PREFIX = 16

Seed = tuple[bool, tuple[int, ...], Ticket]
"""A prefix to read before the prompts that share it: whether with the adapter, its tokens, and who needs it."""


class Reader:
    """Reads prompts and continuations.

    Args:
        runner: runs the passes.
        prefixes: what was read before.
        work: counts.
        use: turns the adapter on and off.
        chunk: most tokens of a row in one pass; longer prompts are read in several.
    """

    def __init__(
        self, runner: Runner, prefixes: PrefixCache, work: Work, *, use: Callable[[bool], None], chunk: int
    ) -> None:
        self.runner = runner
        self.prefixes = prefixes
        self.work = work
        self.chunk = chunk
        self._use = use

    def new_slots(self) -> Slots:
        """Empty memory for keys and values, with room to grow."""
        return Slots(len(self.runner.architecture.layers), self.runner.device)

    def head(self, states: Tensor) -> Tensor:
        """Logits, float32, of final hidden states."""
        self.work.head_rows += len(states)
        return self.runner.architecture.head(states).float()

    def step(self, work: Pass, *, adapted: bool) -> Tensor:
        """One token more for every row of a pass; final hidden states ``(row, 1, d_model)``."""
        self._use(adapted)
        hidden = self.runner.run(work)
        assert hidden is not None
        self.work.forwards += 1
        self.work.generated_tokens += len(work.windows)
        self.work.layer_tokens += len(work.windows) * len(self.runner.architecture.layers)
        return hidden

    def seed(self, adapted: bool, tokens: tuple[int, ...]) -> None:
        """Read a prefix that many prompts share, so that it is read once."""
        key = (adapted, ())
        known = self.prefixes.longest(key, tokens, len(tokens))
        if known is not None and known[1] == len(tokens):
            return
        job = Job(Request(tokens, adapted=adapted), Ticket([], None), [])
        job.prefix = known
        slots = self.group([job])
        self.read([job], slots=slots, stop_after=None)
        self.prefixes.add(Prefix(key, tokens, slots.take(0, len(tokens)), None))

    def look_up(self, job: Job) -> None:
        """Find how much of a job's prompt is known."""
        if job.looked:
            return
        job.looked = True
        prompt = job.request.prompt
        found = [self.prefixes.longest(job.key, prompt, job.limit)]
        clean = (job.request.adapted, ())
        if job.key != clean:
            found.append(self.prefixes.longest(clean, prompt, min(job.limit, job.clean_limit)))
        useful = [one for one in found if one is not None and one[1] >= _USEFUL_PREFIX]
        job.prefix = max(useful, key=lambda one: one[1], default=None)

    def group(self, jobs: Sequence[Job]) -> Slots:
        """Memory for the keys and values of a few rows, with what is known put in."""
        slots = Slots(len(self.runner.architecture.layers), self.runner.device, grain=1)
        slots.reserve(len(jobs), max(len(job.request.tokens) for job in jobs))
        for row, job in enumerate(jobs):
            if job.prefix is not None:
                slots.put(row, job.prefix[0].stored, job.start)
                self.work.prefix_tokens_reused += job.start
        return slots

    def read(self, jobs: Sequence[Job], *, slots: Slots | None, stop_after: int | None) -> list[Tensor | None]:
        """Read the rest of each job's prompt and continuation; returns the last final hidden state of each."""
        self._use(jobs[0].request.adapted)
        last: list[Tensor | None] = [None] * len(jobs)
        table = EditTable(self.runner.device)
        done = 0
        longest = max(job.remaining for job in jobs)
        ends_only = stop_after is None and all(job.needs_end_only for job in jobs)
        while done < longest:
            step = min(self.chunk, longest - done) if slots is not None else longest
            windows, spans = [], []
            for job in jobs:
                start = min(job.start + done, len(job.request.tokens))
                tokens = job.request.tokens[start : start + step]
                windows.append(job.window(start, tokens))
                spans.append(range(start, start + len(tokens)))
            taps, owners = taps_for(jobs, spans)
            work = Pass(windows, slots=slots, taps=taps, stop_after=stop_after, table=table, ends_only=ends_only)
            hidden = self.runner.run(work)
            self._count(spans, stop_after)
            deliver(work, owners)
            if hidden is not None:
                self._score(jobs, spans, hidden, last)
            done += step
        return last

    def _count(self, spans: Sequence[range], stop_after: int | None) -> None:
        layers = len(self.runner.architecture.layers) if stop_after is None else stop_after
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
        size = max(1, _HEAD_ELEMENTS // self.runner.architecture.vocab)
        for first in range(0, len(rows), size):
            logits = self.head(picked[first : first + size])
            _keep_scores(places[first : first + size], logits)


def shared_prefixes(jobs: Sequence[Job]) -> list[Seed]:
    """Prefixes that several of a caller's prompts begin with and that no edit touches."""
    groups: dict[tuple[bool, tuple[int, ...]], list[Job]] = defaultdict(list)
    for job in jobs:
        clean = min(job.limit, job.clean_limit)
        # A prefix is read through all layers, which is more than a request that stops early needs.
        if clean >= _SHARED_TOKENS and job.stop_after is None:
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


def taps_for(
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
    every = [(row, column) for row in range(len(jobs)) for column in range(width)] if wanted else []
    for (_, before), (rows, columns, owners, site) in wanted.items():
        whole = len(rows) == len(every) and list(zip(rows, columns, strict=True)) == every
        taps.append(Tap(site, before, tuple(rows), tuple(columns), is_whole=whole))
        owned.append(owners)
    return taps, owned


def _overlap(positions: Sequence[int], span: range) -> Sequence[int]:
    if isinstance(positions, range):
        return range(max(positions.start, span.start), min(positions.stop, span.stop))
    return sorted(at for at in positions if at in span)


def deliver(work: Pass, owned: Sequence[Sequence[tuple[Job, int, int]]]) -> None:
    """Give what a pass read to the jobs it belongs to."""
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
