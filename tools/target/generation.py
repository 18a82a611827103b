"""Batched generation and scoring on a causal language model.

Rows are left-padded with an attention mask and explicit positions, so that what a row yields does not depend
on the rows beside it. Equal prompts in a batch share one prefill. Finished rows leave the batch.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from marple.tools.target.sampling import choose_tokens, uniform_draws

__all__ = ["Engine", "Generation", "Request"]

_log = logging.getLogger(__name__)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Request:
    """One sample to generate."""

    prompt: tuple[int, ...]
    seed: int
    max_new_tokens: int


@dataclass(frozen=True)
class Generation:
    """The tokens of one sample, without the stop token."""

    tokens: tuple[int, ...]
    finish: Literal["stop", "length"]


@dataclass
class Engine:
    """Runs a model over ragged batches.

    Args:
        model: a ``transformers`` causal language model in evaluation mode.
        stop_tokens: ids that end a generation.
        batch_tokens: most tokens (padding and tokens to come included) in one batch; halved when memory
            runs out.
    """

    model: Any
    stop_tokens: frozenset[int]
    batch_tokens: int

    def generate(self, requests: Sequence[Request], *, temperature: float, top_p: float = 1.0) -> list[Generation]:
        """One generation per request, in the order given.

        Raises:
            MemoryError: a single request does not fit into memory.
        """

        def run(batch: Sequence[Request]) -> list[Generation]:
            return self._generate_batch(batch, temperature=temperature, top_p=top_p)

        return self._batched(requests, run, length=lambda item: len(item.prompt), room=_new_tokens)

    def score(self, pairs: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        """Log-probability (nats) of each continuation token, given its prompt and the tokens before it.

        Raises:
            MemoryError: a single pair does not fit into memory.
        """
        return self._batched(pairs, self._score_batch, length=lambda pair: len(pair[0]) + len(pair[1]))

    def _batched(
        self,
        items: Sequence[_Item],
        run: Callable[[Sequence[_Item]], list[_Result]],
        *,
        length: Callable[[_Item], int],
        room: Callable[[_Item], int] = lambda item: 0,
    ) -> list[_Result]:
        order = sorted(range(len(items)), key=lambda at: length(items[at]))
        results: dict[int, _Result] = {}
        waiting = list(order)
        while waiting:
            size = _rows_that_fit([length(items[at]) + room(items[at]) for at in waiting], self.batch_tokens)
            batch = waiting[:size]
            try:
                outputs = run([items[at] for at in batch])
            except Exception as error:
                if not _out_of_memory(error):
                    raise
                if size == 1:
                    raise MemoryError("one request alone does not fit into the device's memory") from error
                widest = max(length(items[at]) + room(items[at]) for at in batch)
                self.batch_tokens = max(1, size // 2) * widest
                _log.warning("out of memory with a batch of %d: going on with %d", size, max(1, size // 2))
                continue
            results.update(zip(batch, outputs, strict=True))
            del waiting[:size]
        return [results[at] for at in range(len(items))]

    @torch.inference_mode()
    def _generate_batch(self, batch: Sequence[Request], *, temperature: float, top_p: float) -> list[Generation]:
        device = self.model.device
        steps = max(request.max_new_tokens for request in batch)
        draws = uniform_draws([request.seed for request in batch], steps).to(
            device, dtype=torch.float32 if device.type == "mps" else torch.float64
        )
        state = _prefill(self.model, [request.prompt for request in batch])
        tokens: list[list[int]] = [[] for _ in batch]
        finish: list[Literal["stop", "length"]] = ["length"] * len(batch)
        rows = list(range(len(batch)))
        for step in range(steps):
            chosen = choose_tokens(state.logits, draws[rows, step], temperature=temperature, top_p=top_p)
            going = []
            for slot, (row, token) in enumerate(zip(rows, chosen.tolist(), strict=True)):
                if token in self.stop_tokens:
                    finish[row] = "stop"
                    continue
                tokens[row].append(token)
                if len(tokens[row]) < batch[row].max_new_tokens:
                    going.append(slot)
            if not going:
                break
            if len(going) < len(rows):
                state.keep(going)
                chosen = chosen[going]
                rows = [rows[slot] for slot in going]
            state.advance(chosen)
        return [Generation(tuple(ids), end) for ids, end in zip(tokens, finish, strict=True)]

    @torch.inference_mode()
    def _score_batch(self, batch: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[list[float]]:
        ids, mask = _left_padded([(*prompt, *continuation) for prompt, continuation in batch])
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        tail = max(len(continuation) for _, continuation in batch)
        if tail == 0:
            return [[] for _ in batch]
        logits = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=_positions(mask),
            use_cache=False,
            logits_to_keep=tail + 1,
        ).logits
        log_probabilities = torch.log_softmax(logits[:, :-1].float(), dim=-1)
        picked = log_probabilities.gather(-1, ids[:, -tail:].unsqueeze(-1)).squeeze(-1).tolist()
        return [row[tail - len(pair[1]) :] for row, pair in zip(picked, batch, strict=True)]


@dataclass
class _State:
    """A batch in the middle of decoding."""

    model: Any
    cache: Any
    mask: Tensor
    logits: Tensor

    def keep(self, slots: list[int]) -> None:
        index = torch.tensor(slots, device=self.mask.device)
        self.cache.batch_select_indices(index)
        self.mask = self.mask[index]

    def advance(self, tokens: Tensor) -> None:
        self.mask = torch.cat([self.mask, self.mask.new_ones(self.mask.shape[0], 1)], dim=1)
        output = self.model(
            input_ids=tokens.unsqueeze(1),
            attention_mask=self.mask,
            position_ids=self.mask.sum(dim=1, keepdim=True) - 1,
            past_key_values=self.cache,
            use_cache=True,
        )
        self.logits = output.logits[:, -1]


def _prefill(model: Any, prompts: Sequence[tuple[int, ...]]) -> _State:
    unique = list(dict.fromkeys(prompts))
    ids, mask = _left_padded(unique)
    ids, mask = ids.to(model.device), mask.to(model.device)
    output = model(input_ids=ids, attention_mask=mask, position_ids=_positions(mask), use_cache=True, logits_to_keep=1)
    state = _State(model=model, cache=output.past_key_values, mask=mask, logits=output.logits[:, -1])
    if len(unique) < len(prompts):
        place = {prompt: at for at, prompt in enumerate(unique)}
        slots = [place[prompt] for prompt in prompts]
        state.keep(slots)
        state.logits = state.logits[slots]
    return state


def _left_padded(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    width = max(len(row) for row in rows)
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows])
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
    return ids, mask


def _positions(mask: Tensor) -> Tensor:
    return (mask.cumsum(dim=1) - 1).clamp(min=0)


def _new_tokens(request: Request) -> int:
    return request.max_new_tokens


def _rows_that_fit(lengths: Sequence[int], budget: int) -> int:
    """How many of the first rows fit when all are padded to the widest; at least one."""
    widest = 0
    for count, length in enumerate(lengths, start=1):
        widest = max(widest, length)
        if widest * count > budget:
            return max(1, count - 1)
    return len(lengths)


def _out_of_memory(error: Exception) -> bool:
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
